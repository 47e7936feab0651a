import { randomUUID } from 'node:crypto';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { DomschedError } from '../error.ts';
import type { Observer, Tick } from '../tick/tick.ts';
import { version } from '../version.ts';
import { LineEncoder } from './encode.ts';
import type { TraceHeader } from './line.ts';
import { type OpenNew, olderPart, TraceFile } from './trace-file.ts';

/** Bytes that a trace takes on disk at most, unless told otherwise. */
export const DEFAULT_MAX_BYTES = 64 * 2 ** 20;
export const SMALLEST_MAX_BYTES = 64 * 2 ** 10;
/** Bytes that may wait for a slow disk; then ticks are left out. */
const MAX_PENDING = 8 * 2 ** 20;
/** Of a first line that is looked at to know a trace. */
const HEADER_BYTES = 4096;
/** A disk that is full is tried again after this many ms. */
const RETRY_MS = 1_000;
const FULL: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT']);

/** There is no room on the disk, or there is again: ticks that were left out. */
export type DiskRoom = { readonly isFull: true } | { readonly isFull: false; readonly dropped: number };

export interface RecorderOptions {
  readonly file: string;
  /** Of both parts together, in bytes. */
  readonly maxBytes?: number;
  readonly source: TraceHeader['source'];
  /** The trace ends early: the disk is broken, or was still full when it was closed. Called once at most. */
  readonly onError?: (error: DomschedError) => void;
  /** The disk is full: ticks are left out until it no longer is. */
  readonly onRoom?: (room: DiskRoom) => void;
  /** How a file is made. */
  readonly openNew?: OpenNew;
  /** Monotonic, in ms. */
  readonly now?: () => number;
}

/** A line that waits to be written. */
interface WaitingLine {
  readonly bytes: Buffer;
  /** Ticks that were left out before it. */
  readonly dropped: number;
  readonly turnOver: boolean;
  /** How often the disk had been full when it was made: it builds on lines that were not lost. */
  readonly epoch: number;
}

/**
 * Writes what the daemon sees to a file, one line per tick. When half the limit is reached the file becomes the older
 * part, instead of the one before, and a new one begins with a full line: any moment of the last half is kept.
 */
export class TraceRecorder implements Observer {
  readonly #options: Required<Pick<RecorderOptions, 'file' | 'maxBytes' | 'now'>> & RecorderOptions;
  readonly #encoder = new LineEncoder();
  readonly #trace: TraceFile;
  /** As they will be when everything that waits is written. */
  #part = 1;
  #bytes: number;
  #pending = 0;
  #dropped = 0;
  #failed = false;
  #epoch = 0;
  /** The disk is full: when to try again, and what it said. */
  #full: { retryMs: number; error: Error } | undefined;
  /** Writes follow each other. */
  #last: Promise<void> = Promise.resolve();

  private constructor(options: RecorderOptions, trace: TraceFile) {
    this.#options = { maxBytes: DEFAULT_MAX_BYTES, now: () => performance.now(), ...options };
    this.#trace = trace;
    this.#bytes = trace.headerOf(1).length;
    // What fails here fails again with the first line.
    this.#last = trace.append(Buffer.alloc(0)).catch(() => {});
  }

  /**
   * Begins a trace. A trace that the file holds already becomes its older part.
   * @throws DomschedError `usage` when the file holds something else, cannot be written, or the limit is too small
   */
  static async create(options: RecorderOptions): Promise<TraceRecorder> {
    const { file, maxBytes = DEFAULT_MAX_BYTES, source, openNew } = options;
    if (!(maxBytes >= SMALLEST_MAX_BYTES)) {
      throw new DomschedError(
        'usage',
        `a trace needs ${SMALLEST_MAX_BYTES} bytes at least, not ${maxBytes}`,
        {
          maxBytes,
        },
      );
    }
    const header = {
      format: 'domsched-trace/1',
      producer: { name: 'domsched', version: version() },
      id: randomUUID(),
      source,
      started: new Date().toISOString(),
    } as const;
    try {
      await setAside(file);
      return new TraceRecorder(options, await TraceFile.create(file, header, openNew));
    } catch (error) {
      if (error instanceof DomschedError) throw error;
      const { message } = error as Error;
      throw new DomschedError('usage', `the trace cannot be written: ${message}`, { file }, { cause: error });
    }
  }

  tick(tick: Tick): void {
    if (this.#failed) return;
    // One line at a time finds out whether there is room again.
    const isWaiting =
      this.#full !== undefined && (this.#pending > 0 || this.#options.now() < this.#full.retryMs);
    if (isWaiting || this.#pending > MAX_PENDING) {
      this.#dropped++;
      this.#encoder.reset();
      return;
    }
    const half = this.#options.maxBytes / 2;
    let bytes = this.#line(tick);
    const turnOver = this.#bytes + bytes.length > half;
    if (turnOver) {
      this.#encoder.reset();
      bytes = this.#line(tick);
      this.#part += 1;
      this.#bytes = this.#trace.headerOf(this.#part).length;
    }
    if (this.#bytes + bytes.length > half) {
      this.#fail(new Error(`one tick takes ${bytes.length} bytes, more than the limit allows`));
      return;
    }
    this.#enqueue({ bytes, dropped: this.#dropped, turnOver, epoch: this.#epoch });
    this.#dropped = 0;
  }

  /** Resolves when everything is written, or cannot be. */
  async close(): Promise<void> {
    await this.#last;
    if (this.#full !== undefined) this.#fail(this.#full.error);
    this.#failed = true;
    await this.#trace.close().catch(() => {});
  }

  #line(tick: Tick): Buffer {
    return Buffer.from(`${JSON.stringify(this.#encoder.encode(tick, this.#dropped))}\n`);
  }

  #enqueue(line: WaitingLine): void {
    this.#bytes += line.bytes.length;
    this.#pending += line.bytes.length;
    this.#last = this.#last.then(async () => {
      await this.#write(line);
      this.#pending -= line.bytes.length;
    });
  }

  async #write(line: WaitingLine): Promise<void> {
    if (this.#failed) return;
    if (line.epoch !== this.#epoch) {
      this.#dropped += line.dropped + 1;
      return;
    }
    try {
      if (await this.#trace.isAway()) return await this.#beginAgain(line);
      if (line.turnOver && this.#trace.bytes > 0) await this.#trace.turnOver();
      await this.#trace.append(line.bytes);
    } catch (error) {
      if (FULL.has((error as NodeJS.ErrnoException).code)) this.#leaveOut(line, error as Error);
      else this.#fail(error as Error);
      return;
    }
    if (this.#full === undefined) return;
    this.#full = undefined;
    this.#options.onRoom?.({ isFull: false, dropped: line.dropped });
  }

  /** The file was moved or removed: it is made again. Lines that wait build on what is no longer there. */
  async #beginAgain(line: WaitingLine): Promise<void> {
    await setAside(this.#options.file);
    await this.#trace.beginAgain();
    await this.#trace.append(Buffer.alloc(0));
    this.#drop(line);
  }

  /** A line is not written, and so none that builds on it. The next one will be a full one. */
  #drop(line: WaitingLine): void {
    this.#epoch += 1;
    this.#dropped += line.dropped + 1;
    this.#encoder.reset();
    this.#part = this.#trace.part;
    this.#bytes = this.#trace.bytes || this.#trace.headerOf(this.#part).length;
  }

  #leaveOut(line: WaitingLine, error: Error): void {
    const { onRoom, now } = this.#options;
    this.#drop(line);
    if (this.#full === undefined) onRoom?.({ isFull: true });
    this.#full = { retryMs: now() + RETRY_MS, error };
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
