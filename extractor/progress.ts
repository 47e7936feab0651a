import { createRequire } from 'node:module';
import process from 'node:process';

type Ora = ReturnType<typeof import('ora')['default']>;

/** Work shorter than this, in ms, shows nothing. */
const PATIENCE = 400;
const INTERVAL = 80;

/**
 * Shows the progress of a slow extraction, on a terminal only. Engines do not yield to the event loop, so their calls
 * draw the line, and the first call that comes late enough loads ora synchronously.
 */
export class Progress {
  readonly #enabled: boolean;
  readonly #started = performance.now();
  #drawn = 0;
  #spinner: Ora | null = null;

  constructor(quiet: boolean) {
    // A terminal of unknown width (a serial line, script(1) without one) has 0 columns, which makes ora count lines
    // endlessly.
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
