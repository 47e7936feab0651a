import process from 'node:process';
import { emitKeypressEvents } from 'node:readline';

const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';

/** Takes the whole terminal and restores it on every path. */
export class Terminal implements Disposable {
  readonly #onKey: (key: { name?: string; ctrl?: boolean }) => void;
  readonly #onResize: () => void;
  readonly #leave = () => this[Symbol.dispose]();
  #isOpen = true;

  constructor(onKey: (key: { name?: string; ctrl?: boolean }) => void, onResize: () => void) {
    this.#onKey = onKey;
    this.#onResize = onResize;
    process.stdout.write(ENTER);
    process.on('exit', this.#leave);
    process.stdout.on('resize', onResize);
    if (process.stdin.isTTY) {
      emitKeypressEvents(process.stdin);
      process.stdin.setRawMode(true);
      process.stdin.on('keypress', this.#press);
      process.stdin.resume();
    }
  }

  get columns(): number {
    return process.stdout.columns || 80;
  }

  get rows(): number {
    return process.stdout.rows || 24;
  }

  /** Overwrites the old lines without a flicker. */
  show(lines: readonly string[]): void {
    if (!this.#isOpen) return;
    process.stdout.write(`\x1b[H${lines.map((line) => `${line}\x1b[K`).join('\r\n')}\x1b[J`);
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    process.off('exit', this.#leave);
    process.stdout.off('resize', this.#onResize);
    if (process.stdin.isTTY) {
      process.stdin.off('keypress', this.#press);
      process.stdin.setRawMode(false);
      process.stdin.pause();
    }
    process.stdout.write(LEAVE);
  }

  readonly #press = (_text: string | undefined, key: { name?: string; ctrl?: boolean }) => this.#onKey(key);
}
