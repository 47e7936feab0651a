import pino, { type Logger } from 'pino';
import type { Config } from './config-schema.ts';

/** The daemon's log, to standard output or a file. */
export class DaemonLog {
  readonly logger: Logger;
  readonly #destination: ReturnType<typeof pino.destination>;
  readonly #file: string | undefined;

  /** @throws what the file system throws */
  constructor({ level, file }: Config['log']) {
    // Synchronous, so that lines logged before a crash are not lost.
    this.#destination = pino.destination({ dest: file ?? 1, sync: true, mkdir: true });
    // A full disk or a rotation under way may make a write fail; that must not end the daemon.
    this.#destination.on('error', () => {});
    this.#file = file;
    this.logger = pino({ level, base: null }, this.#destination);
  }

  /** Opens the log file again by its name, since a rotation may have moved the open one away. */
  reopen(): void {
    if (this.#file === undefined) return;
    try {
      this.#destination.reopen();
    } catch (error) {
      // Keep logging to the old file.
      this.logger.error({ err: error, file: this.#file }, 'the log file cannot be opened again');
    }
  }
}
