import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, rename } from 'node:fs/promises';
import type { Observer, TickReport } from '../daemon/report.ts';
import { DomschedError } from '../error.ts';
import { version } from '../version.ts';
import { LineEncoder } from './encode.ts';
import type { TraceHeader } from './line.ts';

/** Bytes that a trace takes on disk at most, unless told otherwise. */
export const DEFAULT_MAX_BYTES = 64 * 2 ** 20;
export const SMALLEST_MAX_BYTES = 64 * 2 ** 10;
/** Bytes that may wait for a slow disk; then ticks are left out. */
const MAX_PENDING = 8 * 2 ** 20;
/** Of a first line that is looked at to know a trace. */
const HEADER_BYTES = 4096;

export interface RecorderOptions {
  readonly file: string;
  /** Of both parts together, in bytes. */
  readonly maxBytes?: number;
  readonly source: TraceHeader['source'];
  /** The trace ends early: the disk is full, say. Called once at most. */
  readonly onError?: (error: DomschedError) => void;
}

/** Name of the file that the older half of a trace moves to. */
export function olderPart(file: string): string {
  return `${file}.1`;
}

/**
 * Writes what the daemon sees to a file, one line per tick. When half the limit is reached the file becomes the older
 * part, instead of the one before, and a new one begins with a full line: any moment of the last half is kept.
 */
export class TraceRecorder implements Observer {
  readonly #options: Required<Pick<RecorderOptions, 'file' | 'maxBytes'>> & RecorderOptions;
  readonly #encoder = new LineEncoder();
  readonly #header: Omit<TraceHeader, 'part'>;
  #handle: FileHandle;
  #part = 1;
  /** Of this part, what waits included. */
  #bytes = 0;
  #pending = 0;
  #dropped = 0;
  #failed = false;
  /** Writes follow each other. */
  #last: Promise<void> = Promise.resolve();

  private constructor(options: RecorderOptions, handle: FileHandle) {
    this.#options = { maxBytes: DEFAULT_MAX_BYTES, ...options };
    this.#handle = handle;
    this.#header = {
      format: 'domsched-trace/1',
      producer: { name: 'domsched', version: version() },
      id: randomUUID(),
      source: options.source,
      started: new Date().toISOString(),
    };
    this.#begin();
  }

  /**
   * Begins a trace. A trace that the file holds already becomes its older part.
   * @throws DomschedError `usage` when the file holds something else, cannot be written, or the limit is too small
   */
  static async create(options: RecorderOptions): Promise<TraceRecorder> {
    const { file, maxBytes = DEFAULT_MAX_BYTES } = options;
    if (!(maxBytes >= SMALLEST_MAX_BYTES)) {
      throw new DomschedError(
        'usage',
        `a trace needs ${SMALLEST_MAX_BYTES} bytes at least, not ${maxBytes}`,
        {
          maxBytes,
        },
      );
    }
    try {
      await setAside(file);
      return new TraceRecorder(options, await create(file));
    } catch (error) {
      if (error instanceof DomschedError) throw error;
      const { message } = error as Error;
      throw new DomschedError('usage', `the trace cannot be written: ${message}`, { file }, { cause: error });
    }
  }

  tick(report: TickReport): void {
    if (this.#failed) return;
    if (this.#pending > MAX_PENDING) {
      this.#dropped++;
      this.#encoder.reset();
      return;
    }
    const half = this.#options.maxBytes / 2;
    let line = this.#line(report);
    if (this.#bytes + line.length > half) {
      this.#turnOver();
      this.#encoder.reset();
      line = this.#line(report);
    }
    if (this.#bytes + line.length > half) {
      this.#fail(new Error(`one tick takes ${line.length} bytes, more than the limit allows`));
      return;
    }
    this.#dropped = 0;
    this.#write(line);
  }

  /** Resolves when everything is written, or cannot be. */
  async close(): Promise<void> {
    await this.#last;
    this.#failed = true;
    await this.#handle.close().catch(() => {});
  }

  #line(report: TickReport): Buffer {
    return Buffer.from(`${JSON.stringify(this.#encoder.encode(report, this.#dropped))}\n`);
  }

  #begin(): void {
    this.#bytes = 0;
    this.#write(Buffer.from(`${JSON.stringify({ ...this.#header, part: this.#part })}\n`));
  }

  #turnOver(): void {
    const { file } = this.#options;
    this.#part++;
    this.#enqueue(async () => {
      await this.#handle.close();
      await rename(file, olderPart(file));
      this.#handle = await create(file);
    });
    this.#begin();
  }

  #write(bytes: Buffer): void {
    this.#bytes += bytes.length;
    this.#pending += bytes.length;
    this.#enqueue(async () => {
      await this.#handle.writeFile(bytes);
      this.#pending -= bytes.length;
    });
  }

  #enqueue(step: () => Promise<void>): void {
    this.#last = this.#last.then(async () => {
      if (this.#failed) return;
      try {
        await step();
      } catch (error) {
        this.#fail(error as Error);
      }
    });
  }

  #fail(cause: Error): void {
    if (this.#failed) return;
    this.#failed = true;
    const { file, onError } = this.#options;
    onError?.(
      new DomschedError('trace-failed', `the trace ends here: ${cause.message}`, { file }, { cause }),
    );
  }
}

async function create(file: string): Promise<FileHandle> {
  // Names of other people's processes are in it.
  return open(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_APPEND, 0o600);
}

/** Moves an older trace out of the way; anything else stays as it is. */
async function setAside(file: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(file, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  try {
    if (!(await handle.stat()).isFile()) throw notOurs(file);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(HEADER_BYTES), 0, HEADER_BYTES, 0);
    const start = buffer.toString('latin1', 0, bytesRead);
    if (bytesRead > 0 && !start.startsWith('{"format":"domsched-trace/')) throw notOurs(file);
  } finally {
    await handle.close();
  }
  await rename(file, olderPart(file));
}

function notOurs(file: string): DomschedError {
  return new DomschedError('usage', `${file} exists and is no trace; give another name`, { file });
}
