import { DomschedError } from '../../error.ts';
import { FRAME_SIZE, type FrameNumber } from '../frame.ts';
import { FRAME_STATUS, type FrameBatch, type FrameStatus } from '../frame-batch.ts';
import type { FrameReader, FrameRegion, FrameWrite, FrameWriter } from '../types.ts';
import type { XenCalls } from './calls.ts';
import { ERRNO } from './errno.ts';
import { FrameWindow } from './frame-window.ts';

/** Frames kept mapped: 16 MiB. If the guest releases one of them, it is free only when we unmap it. */
const KEPT = 4096;
/** Most frames that one call maps. */
const RUN = 256;
/** Most frames that one edit may write to. */
const WRITTEN = 8192;
/** Most bits of a machine address in the page tables of any x86-64 processor. */
const PHYSICAL_BITS = 52;

interface FrameRun {
  readonly first: number;
  readonly count: number;
  readonly frames: readonly number[];
}

/**
 * Frames of a Xen domain. Frames that were read stay mapped, for reading only; a frame to write is mapped for writing
 * only as long as the write takes.
 *
 * README.md in this folder says why a kept mapping is right, and for how long.
 */
export class XenFrames<F extends FrameNumber = FrameNumber> implements FrameReader<F>, FrameWriter<F> {
  readonly space: FrameReader<F>['space'];
  readonly physicalBits = PHYSICAL_BITS;
  readonly #calls: XenCalls;
  readonly #domid: number;
  readonly #name: string;
  readonly #window: FrameWindow;
  /** Slot of each mapped frame. */
  readonly #slots = new Map<number, number>();
  /** Mapped runs, oldest first, because the window is filled in a circle. */
  readonly #runs: FrameRun[] = [];
  #next = 0;
  /** Frames of the present read that could not be mapped. */
  readonly #failed = new Map<number, FrameStatus>();
  readonly #wanted: number[] = [];
  readonly #frames = new BigUint64Array(WRITTEN);
  readonly #errors = new Int32Array(WRITTEN);
  #failure: DomschedError | undefined;

  constructor(parts: { calls: XenCalls; domid: number; name: string; space: FrameReader<F>['space'] }) {
    this.space = parts.space;
    this.#calls = parts.calls;
    this.#domid = parts.domid;
    this.#name = parts.name;
    this.#window = new FrameWindow(KEPT);
  }

  get kept(): number {
    return this.#slots.size;
  }

  /** Xen does not tell where a domain has memory. */
  regions(): readonly FrameRegion<F>[] {
    return [];
  }

  read(batch: FrameBatch<F>): number {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#failed.size > 0) this.#failed.clear();
    let failed = 0;
    for (let start = 0; start < batch.count; start += RUN) {
      const end = Math.min(batch.count, start + RUN);
      this.#mapMissing(batch, start, end);
      for (let i = start; i < end; i++) failed += this.#copy(batch, i);
    }
    return failed;
  }

  write(writes: readonly FrameWrite<F>[]): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (writes.length === 0) return;
    const slots = new Map<number, number>();
    for (const [index, { frame, offset, bytes }] of writes.entries()) {
      if (!(offset >= 0 && offset + bytes.length <= FRAME_SIZE)) {
        throw this.#unwritable(frame, index, `has no ${bytes.length} bytes at ${offset}`);
      }
      if (!slots.has(frame)) slots.set(frame, slots.size);
    }
    if (slots.size > WRITTEN) {
      throw new DomschedError(
        'refused',
        `${this.#name}: an edit of ${slots.size} frames is more than ${WRITTEN}; nothing was written`,
        { domain: this.#name, frames: slots.size },
      );
    }
    for (const [frame, slot] of slots) this.#frames[slot] = BigInt(frame);
    const window = new FrameWindow(WRITTEN);
    try {
      this.#mapAll(window, slots.size, (slot) => {
        const index = writes.findIndex(({ frame }) => slots.get(frame) === slot);
        return this.#unwritable(writes[index]!.frame, index, 'cannot be mapped to be written');
      });
      for (const { frame, offset, bytes } of writes) window.store(slots.get(frame)!, offset, bytes);
    } finally {
      window.close();
    }
  }

  drop(): void {
    for (const { first, count } of this.#runs) this.#window.unmap(first, count);
    this.#runs.length = 0;
    this.#slots.clear();
    this.#next = 0;
  }

  /** Makes every later access throw this and unmaps everything. */
  fail(error: DomschedError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#runs.length = 0;
    this.#slots.clear();
    this.#window.close();
  }

  close(): void {
    this.fail(new DomschedError('domain-gone', `${this.#name} was closed`, { domain: this.#name }));
  }

  #mapMissing(batch: FrameBatch<F>, start: number, end: number): void {
    const wanted = this.#wanted;
    wanted.length = 0;
    for (let i = start; i < end; i++) {
      const frame = batch.frames[i]!;
      if (!this.#slots.has(frame) && !this.#failed.has(frame) && !wanted.includes(frame)) wanted.push(frame);
    }
    if (wanted.length > 0) this.#map(wanted);
  }

  #copy(batch: FrameBatch<F>, i: number): 0 | 1 {
    const frame = batch.frames[i]!;
    const position = batch.positions[i]!;
    const length = batch.lengths[i]!;
    let slot = this.#slots.get(frame);
    if (slot === undefined && !this.#failed.has(frame)) {
      // The circle has just overwritten this frame.
      this.#map([frame]);
      slot = this.#slots.get(frame);
    }
    if (slot === undefined) {
      batch.bytes.fill(0, position, position + length);
      batch.status[i] = this.#failed.get(frame) ?? FRAME_STATUS.absent;
      return 1;
    }
    this.#window.copy(slot, batch.offsets[i]!, length, batch.bytes, position);
    batch.status[i] = FRAME_STATUS.ok;
    return 0;
  }

  /** Maps frames that are not mapped, at most {@link RUN}, in one call. */
  #map(frames: readonly number[]): void {
    const count = frames.length;
    const first = this.#room(count);
    for (let i = 0; i < count; i++) this.#frames[i] = BigInt(frames[i]!);
    const errno = this.#window.map(this.#calls, this.#domid, first, this.#frames, this.#errors, count, false);
    if (errno !== 0) throw this.#refused(errno);
    this.#runs.push({ first, count, frames: [...frames] });
    let failures = 0;
    for (let i = 0; i < count; i++) {
      const error = Math.abs(this.#errors[i]!);
      if (error === 0) {
        this.#slots.set(frames[i]!, first + i);
        continue;
      }
      failures += 1;
      this.#failed.set(frames[i]!, error === ERRNO.EPERM ? FRAME_STATUS.denied : FRAME_STATUS.absent);
    }
    // A domain that is being torn down loses its frames one by one.
    if (failures > 0) this.#checkAlive();
  }

  /** Frees `count` slots in a row by unmapping the oldest runs. */
  #room(count: number): number {
    if (this.#next + count > this.#window.slots) this.#next = 0;
    const first = this.#next;
    this.#next = first + count;
    const evicted = this.#runs.filter((run) => run.first < first + count && run.first + run.count > first);
    for (const run of evicted) {
      this.#window.unmap(run.first, run.count);
      for (const frame of run.frames) {
        const slot = this.#slots.get(frame);
        if (slot !== undefined && slot >= run.first && slot < run.first + run.count)
          this.#slots.delete(frame);
      }
      this.#runs.splice(this.#runs.indexOf(run), 1);
    }
    return first;
  }

  #mapAll(window: FrameWindow, count: number, failure: (slot: number) => DomschedError): void {
    for (let start = 0; start < count; start += RUN) {
      const some = Math.min(RUN, count - start);
      const frames = this.#frames.subarray(start, start + some);
      const errors = this.#errors.subarray(0, some);
      const errno = window.map(this.#calls, this.#domid, start, frames, errors, some, true);
      if (errno !== 0) throw this.#refused(errno);
      const bad = errors.findIndex((error) => error !== 0);
      if (bad < 0) continue;
      this.#checkAlive();
      throw failure(start + bad);
    }
  }

  #unwritable(frame: number, index: number, why: string): DomschedError {
    return new DomschedError('frame-unmapped', `${this.#name}: frame ${frame} ${why}; nothing was written`, {
      domain: this.#name,
      frame,
      index,
    });
  }

  /** @throws DomschedError `domain-gone` */
  #checkAlive(): void {
    const info = this.#calls.domain(this.#domid);
    if (info !== undefined && !info.dying) return;
    throw new DomschedError('domain-gone', `${this.#name} has ended`, {
      domain: this.#name,
      domid: this.#domid,
    });
  }

  #refused(errno: number): DomschedError {
    try {
      this.#checkAlive();
    } catch (error) {
      if (error instanceof DomschedError) return error;
      throw error;
    }
    const why =
      errno === ERRNO.EPERM || errno === ERRNO.EACCES
        ? 'not permitted; run as root in dom0'
        : `error ${errno}`;
    return new DomschedError('host-unreachable', `${this.#name}: cannot map its memory: ${why}`, {
      domain: this.#name,
      errno,
    });
  }
}
