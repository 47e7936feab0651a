import { constants } from 'node:fs';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import type { TraceHeader } from './line.ts';

/** File name for the older half of a trace. */
export function olderPart(file: string): string {
  return `${file}.1`;
}

/** An open file, reduced to what a trace needs. */
export type TraceHandle = Pick<FileHandle, 'writeFile' | 'truncate' | 'close'>;

/** Creates a file that must not exist yet and opens it for appending. */
export type OpenNew = (file: string) => Promise<TraceHandle>;

/**
 * The parts of a trace on disk. Every part begins with its header and contains whole lines only: a line that does not
 * fit is removed again.
 */
export class TraceFile {
  readonly #file: string;
  readonly #header: Omit<TraceHeader, 'part'>;
  readonly #openNew: OpenNew;
  #handle: TraceHandle | undefined;
  /** Identity of the opened file, whatever its name is now. */
  #opened: string | undefined;
  #part = 1;
  #bytes = 0;

  private constructor(
    file: string,
    header: Omit<TraceHeader, 'part'>,
    openNew: OpenNew,
    handle: TraceHandle,
    opened: string | undefined,
  ) {
    this.#opened = opened;
    this.#file = file;
    this.#header = header;
    this.#openNew = openNew;
    this.#handle = handle;
  }

  /** @throws what the file system throws, also if the file exists */
  static async create(
    file: string,
    header: Omit<TraceHeader, 'part'>,
    openNew: OpenNew = createFile,
  ): Promise<TraceFile> {
    const handle = await openNew(file);
    return new TraceFile(file, header, openNew, handle, await whichFile(file));
  }

  get part(): number {
    return this.#part;
  }

  /** Size of this part, in whole lines. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The line that begins a part. */
  headerOf(part: number): Buffer {
    return Buffer.from(`${JSON.stringify({ ...this.#header, part })}\n`);
  }

  /**
   * Writes a line, after the header if it is the first; an empty line writes only the header.
   * @throws what the file system throws; then nothing of the line remains
   */
  async append(line: Buffer): Promise<void> {
    const bytes = this.#bytes > 0 ? line : Buffer.concat([this.headerOf(this.#part), line]);
    if (this.#handle === undefined) {
      this.#handle = await this.#openNew(this.#file);
      this.#opened = await whichFile(this.#file);
    }
    try {
      await this.#handle.writeFile(bytes);
    } catch (error) {
      await this.#handle.truncate(this.#bytes);
      throw error;
    }
    this.#bytes += bytes.length;
  }

  /** Makes the present file the older part, replacing the previous one. @throws what the file system throws */
  async turnOver(): Promise<void> {
    await rename(this.#file, olderPart(this.#file));
    await this.beginAgain();
  }

  /** Whether the open file was moved or removed, so that new lines would not be found. */
  async isAway(): Promise<boolean> {
    return this.#handle !== undefined && (await whichFile(this.#file)) !== this.#opened;
  }

  /** Starts a new part under the file's name, which must be free. @throws what the file system throws */
  async beginAgain(): Promise<void> {
    this.#part += 1;
    this.#bytes = 0;
    await this.close();
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }
}

/** Identity of the file with this name; undefined if there is none. */
async function whichFile(file: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(file, { bigint: true });
    return `${dev}:${ino}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function createFile(file: string): Promise<TraceHandle> {
  // Private, because it contains names of other people's processes.
  return open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND, 0o600);
}
