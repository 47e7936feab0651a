import { setTimeout as sleep } from 'node:timers/promises';
import type { XenMachine } from './xen-machine.ts';

const INTERVAL_MS = 1_000;
/** No host is so busy that dom0, which has most of the machine's time, does nothing for so long. */
const STANDSTILL_MS = 30_000;
const LOOK_MS = 500;

/**
 * Whether dom0 still does what it is told. A domain may hang by what is done to it; dom0 beside it does not, as long as
 * the hypervisor gets its own timer's interrupts. So when dom0 is silent, it is the emulation that stands still.
 */
export class Heartbeat implements Disposable {
  /** Rejects as soon as dom0 has been silent for half a minute. */
  readonly standstill: Promise<never>;
  #reject: (reason: Error) => void = () => undefined;
  readonly #timer: NodeJS.Timeout;
  #asked: number | undefined;
  #longestMs = 0;
  #ended = false;

  /** @param shell a shell of dom0 that nobody else uses */
  constructor(xen: XenMachine, shell: number) {
    this.standstill = new Promise((_, reject) => {
      this.#reject = reject;
    });
    this.standstill.catch(() => undefined);
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#timer.unref();
    void this.#beat(xen, shell);
  }

  /** The longest that dom0 was silent, in ms. */
  get longestMs(): number {
    return this.#longestMs;
  }

  [Symbol.dispose](): void {
    this.#ended = true;
    clearInterval(this.#timer);
  }

  async #beat(xen: XenMachine, shell: number): Promise<void> {
    try {
      while (!this.#ended) {
        this.#asked = Date.now();
        await xen.run('true', 3_600_000, shell);
        this.#look();
        this.#asked = undefined;
        await sleep(INTERVAL_MS, undefined, { ref: false });
      }
    } catch {
      // The machine has ended; whoever uses it notices by itself.
      this[Symbol.dispose]();
    }
  }

  #look(): void {
    if (this.#asked === undefined || this.#ended) return;
    const silentMs = Date.now() - this.#asked;
    this.#longestMs = Math.max(this.#longestMs, silentMs);
    if (silentMs < STANDSTILL_MS) return;
    this.#reject(new Error(`the emulated machine stands still: dom0 has been silent for ${silentMs} ms`));
  }
}
