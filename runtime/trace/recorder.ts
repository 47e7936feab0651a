import { randomUUID } from 'node:crypto';
import { type FileHandle, open, rename } from 'node:fs/promises';
import { hostname } from 'node:os';
import { DomschedError } from '../error.ts';
import type { Observer, Tick } from '../tick/tick.ts';
import { version } from '../version.ts';
import { LineEncoder } from './encode.ts';
import type { TraceHeader } from './line.ts';
import { type OpenNew, olderPart, TraceFile } from './trace-file.ts';

/** Default limit of a trace on disk, in bytes. */
export const DEFAULT_MAX_BYTES = 64 * 2 ** 20;
export const SMALLEST_MAX_BYTES = 64 * 2 ** 10;
/** Bytes that may wait for a slow disk; beyond that, ticks are left out. */
const MAX_PENDING = 8 * 2 ** 20;
/** How much of a first line is read to recognize a trace. */
const HEADER_BYTES = 4096;
/** A full disk is tried again after this many ms. */
const RETRY_MS = 1_000;
const FULL: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT']);

/** The disk is full, or has room again after so many dropped ticks. */
export type DiskRoom = { readonly isFull: true } | { readonly isFull: false; readonly dropped: number };

export interface RecorderOptions {
  readonly file: string;
  /** Of both parts together, in bytes. */
  readonly maxBytes?: number;
  readonly source: TraceHeader['source'];
  /** Name of this host; the machine's own up to its first dot when left out. */
  readonly host?: string;
  /** Called at most once if the trace ends early: the disk is broken, or was still full on closing. */
  readonly onError?: (error: DomschedError) => void;
  /** Called when the disk is full, so that ticks are left out, and when it no longer is. */
  readonly onRoom?: (room: DiskRoom) => void;
  /** Creates and opens a new file. */
  readonly openNew?: OpenNew;
  /** Monotonic, in ms. */
  readonly now?: () => number;
}

/** A line that waits to be written. */
interface WaitingLine {
  readonly bytes: Buffer;
  /** Ticks left out before it. */
  readonly dropped: number;
  readonly turnOver: boolean;
  /** How often the disk had been full when it was made, since a line depends on earlier lines being written. */
  readonly epoch: number;
}

/**
 * Writes what the daemon sees to a file, one line per tick. At half the limit the file replaces the older part and a
 * new one begins with a full line, so the last half is always complete.
 */
export class TraceRecorder implements Observer {
  readonly wantsWaits = true;
  readonly #options: Required<Pick<RecorderOptions, 'file' | 'maxBytes' | 'now'>> & RecorderOptions;
  readonly #encoder = new LineEncoder();
  readonly #trace: TraceFile;
  /** Values after all waiting lines are written. */
  #part = 1;
  #bytes: number;
  #pending = 0;
  #dropped = 0;
  #failed = false;
  #epoch = 0;
  /** Set while the disk is full: when to try again, and the error. */
  #full: { retryMs: number; error: Error } | undefined;
  /** Chains the writes. */
  #last: Promise<void> = Promise.resolve();

  private constructor(options: RecorderOptions, trace: TraceFile) {
    this.#options = { maxBytes: DEFAULT_MAX_BYTES, now: () => performance.now(), ...options };
    this.#trace = trace;
    this.#bytes = trace.headerOf(1).length;
    // An error here recurs with the first line.
    this.#last = trace.append(Buffer.alloc(0)).catch(() => {});
  }

  /**
   * Begins a trace. If the file already contains one, that becomes the older part.
   * @throws DomschedError `usage` if the file contains something else or cannot be written, or the limit is too small
   */
  static async create(options: RecorderOptions): Promise<TraceRecorder> {
    const { file, maxBytes = DEFAULT_MAX_BYTES, source, host = hostname().split('.')[0]!, openNew } = options;
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
      host,
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
    // One line at a time tests whether there is room again.
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

  /** Resolves when everything is written or cannot be. */
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

  /** Creates the file again after it was moved or removed. Waiting lines depend on lines that are gone. */
  async #beginAgain(line: WaitingLine): Promise<void> {
    await setAside(this.#options.file);
    await this.#trace.beginAgain();
    await this.#trace.append(Buffer.alloc(0));
    this.#drop(line);
  }

  /** Drops a line and all that depend on it. The next one will be a full one. */
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

/** Moves an older trace out of the way; anything else stays. */
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
