import { createRequire } from 'node:module';
import process from 'node:process';

type Ora = ReturnType<typeof import('ora')['default']>;

/** Work shorter than this, in ms, shows nothing. */
const PATIENCE = 400;
const INTERVAL = 80;

/**
 * Says how far a slow extraction is, on a terminal only. Engines work without yielding to the event loop, so the
 * line is drawn from their calls, and ora is loaded, synchronously, by the first call that comes late enough.
 */
export class Progress {
  readonly #enabled: boolean;
  readonly #started = performance.now();
  #drawn = 0;
  #spinner: Ora | null = null;

  constructor(quiet: boolean) {
    // A terminal that does not know its width (a serial line, script(1) without one) has 0 columns, which sends
    // ora into an endless count of lines.
    this.#enabled = !quiet && process.stderr.isTTY === true && process.stderr.columns > 0;
  }

  readonly report = (done: number, total: number, what: string): void => {
    if (!this.#enabled) return;
    const now = performance.now();
    if (now - this.#started < PATIENCE || now - this.#drawn < INTERVAL) return;
    this.#drawn = now;
    this.#spinner ??= createSpinner();
    const percent = total > 0 ? `${Math.min(100, Math.floor((done / total) * 100))} % ` : '';
    this.#spinner.text = `${percent}${what}`;
    this.#spinner.render();
  };

  stop(): void {
    this.#spinner?.stop();
    this.#spinner = null;
  }
}

function createSpinner(): Ora {
  const { default: ora } = createRequire(import.meta.url)('ora') as typeof import('ora');
  return ora({ stream: process.stderr, discardStdin: false }).start();
}
