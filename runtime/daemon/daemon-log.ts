import pino, { type Logger } from 'pino';
import type { Config } from './config-schema.ts';

/** The daemon's log, on standard output or in a file. */
export class DaemonLog {
  readonly logger: Logger;
  readonly #destination: ReturnType<typeof pino.destination>;
  readonly #file: string | undefined;

  /** @throws what the file system throws */
  constructor({ level, file }: Config['log']) {
    // Synchronous: what was logged before a crash is there after it.
    this.#destination = pino.destination({ dest: file ?? 1, sync: true, mkdir: true });
    // A log that cannot be written, on a full disk or for a moment of its rotation, ends no daemon.
    this.#destination.on('error', () => {});
    this.#file = file;
    this.logger = pino({ level, base: null }, this.#destination);
  }

  /** Opens the log by its name again: the file that was open may have been moved away. */
  reopen(): void {
    if (this.#file === undefined) return;
    try {
      this.#destination.reopen();
    } catch (error) {
      // The log goes on in the old file.
      this.logger.error({ err: error, file: this.#file }, 'the log file cannot be opened again');
    }
  }
}
