import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { DaemonProcess } from '../live/daemon-process.ts';
import type { LiveGuest } from '../live/guest.ts';
import { until } from '../live/until.ts';

const LIMIT_MS = 120_000;
const SETTLE_MS = 200;

/**
 * A daemon that is there all the time, as where it is installed, so that no turn pays for its start; while it is not its
 * turn it has no policy, holds nobody and stands still.
 */
export class TurnDaemon implements AsyncDisposable {
  readonly #daemon: DaemonProcess;
  readonly #machines: readonly LiveGuest[];
  readonly #keys: string;
  #begun = 0;

  private constructor(daemon: DaemonProcess, machines: readonly LiveGuest[], keys: string) {
    this.#daemon = daemon;
    this.#machines = machines;
    this.#keys = keys;
  }

  /**
   * @param keys of its configuration, beside policies
   * @param vmlinux of all machines
   */
  static async start(
    directory: string,
    machines: readonly LiveGuest[],
    vmlinux: string,
    keys: string,
  ): Promise<TurnDaemon> {
    const daemon = new DaemonProcess(
      directory,
      machines.map(({ connection }) => connection),
    );
    // It may stand still, and hears nothing else then.
    process.once('exit', () => {
      if (daemon.pid !== undefined) process.kill(daemon.pid, 'SIGKILL');
    });
    const turns = new TurnDaemon(daemon, machines, keys);
    await daemon.extract(vmlinux);
    await daemon.configure('', keys);
    daemon.start();
    const attached = () => daemon.log().filter(({ msg }) => msg === 'attached').length;
    await until('all domains are attached', () => attached() === machines.length, LIMIT_MS);
    await turns.#standStill();
    return turns;
  }

  get pid(): number {
    return this.#daemon.pid!;
  }

  /** Whether it has held somebody of a machine in this turn: asked for is not yet done. */
  hasHeld({ sockets }: LiveGuest): boolean {
    return this.#daemon
      .log(this.#begun)
      .some(({ msg, domain, outcome }) => msg === 'hold' && outcome === 'held' && domain === sockets.qmp);
  }

  /** Its turn, by that policy. */
  async go(policy: string): Promise<void> {
    this.#begun = this.#daemon.logged();
    this.#daemon.signal('SIGCONT');
    await this.#has(policy);
  }

  /** Lets go of everybody and stands still. @throws Error when something went wrong in its turn */
  async rest(): Promise<void> {
    await this.#has('');
    await until('everybody goes on', () => this.#daemon.remains().held.length === 0, LIMIT_MS, 20);
    const trouble = this.#daemon.log(this.#begun).find(({ level }) => level >= 50);
    if (trouble !== undefined) throw new Error(`the daemon: ${JSON.stringify(trouble)}`);
    await this.#standStill();
  }

  async #has(policy: string): Promise<void> {
    const from = this.#daemon.logged();
    await this.#daemon.configure(policy, this.#keys);
    this.#daemon.signal('SIGHUP');
    await this.#daemon.logs(({ msg }) => msg === 'configuration read again', from);
  }

  /** But not while it has a machine paused. */
  async #standStill(): Promise<void> {
    for (;;) {
      await sleep(SETTLE_MS);
      this.#daemon.signal('SIGSTOP');
      const monitors = await Promise.all(this.#machines.map((machine) => machine.monitor()));
      const states = await Promise.all(monitors.map((monitor) => monitor.execute('query-status')));
      if (states.every((state) => (state as { running: boolean }).running)) return;
      this.#daemon.signal('SIGCONT');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#daemon[Symbol.asyncDispose]();
  }
}
