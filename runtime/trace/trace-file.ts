import { constants } from 'node:fs';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import type { TraceHeader } from './line.ts';

/** Name of the file that the older half of a trace moves to. */
export function olderPart(file: string): string {
  return `${file}.1`;
}

/** An open file, as far as a trace needs one. */
export type TraceHandle = Pick<FileHandle, 'writeFile' | 'truncate' | 'close'>;

/** Makes a file that is not there yet and opens it to be appended to. */
export type OpenNew = (file: string) => Promise<TraceHandle>;

/**
 * The parts of a trace on disk. Every part begins with its header, and what is there are whole lines: where there is no
 * room for all of one, what was written of it is taken back.
 */
export class TraceFile {
  readonly #file: string;
  readonly #header: Omit<TraceHeader, 'part'>;
  readonly #openNew: OpenNew;
  #handle: TraceHandle | undefined;
  /** Which file it is that was opened, whatever its name is by now. */
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

  /** @throws what the file system throws, also when the file is there */
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

  /** Of this part, in whole lines. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The line that a part begins with. */
  headerOf(part: number): Buffer {
    return Buffer.from(`${JSON.stringify({ ...this.#header, part })}\n`);
  }

  /**
   * Writes a line, behind the header where it is the first; an empty one for the header alone.
   * @throws what the file system throws: then nothing of it is there
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

  /** What is there becomes the older part, instead of the one before. @throws what the file system throws */
  async turnOver(): Promise<void> {
    await rename(this.#file, olderPart(this.#file));
    await this.beginAgain();
  }

  /** Whether somebody moved or removed the file that is open: what is written would not be found. */
  async isAway(): Promise<boolean> {
    return this.#handle !== undefined && (await whichFile(this.#file)) !== this.#opened;
  }

  /** The next line begins a new part under the file's name, which nothing has. @throws what the file system throws */
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

/** Tells the file that has a name from all others that are open; undefined where none has it. */
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
  // Names of other people's processes are in it.
  return open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND, 0o600);
}
