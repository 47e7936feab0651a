import { DumpBytes } from './file.ts';
import { type DumpRun, RunIndex } from './runs.ts';

export const FLATTENED = Buffer.from('makedumpfile\0\0\0\0', 'latin1');
/** Size of the header; records follow it. */
const HEADER = 4096;
const RECORD = 16;
/** QEMU writes 16 KiB at a time, so this is 64 GiB of packed pages. We hold no more records in memory. */
const MAX_RECORDS = 4_000_000;

/**
 * makedumpfile's flattened format, which QEMU writes too (makedumpfile.h, struct makedumpfile_data_header): a sequence
 * of pieces of the real file, each after its offset in that file and its length, both big-endian.
 */
export class FlattenedFile extends DumpBytes {
  readonly size: number;
  readonly #file: DumpBytes;
  readonly #index: RunIndex;

  /** @throws DomschedError `dump-corrupt` */
  constructor(file: DumpBytes) {
    super(file.path);
    this.#file = file;
    const runs: DumpRun[] = [];
    let size = 0;
    const record = Buffer.alloc(RECORD);
    for (let at = HEADER; ; ) {
      if (file.read(record, 0, RECORD, at) !== RECORD || runs.length === MAX_RECORDS)
        file.corrupt('record of the flattened format', at);
      const first = Number(record.readBigInt64BE(0));
      const count = Number(record.readBigInt64BE(8));
      // The last record has -1 for both.
      if (first === -1) break;
      const offset = at + RECORD;
      if (first < 0 || count <= 0 || !Number.isSafeInteger(first + count) || offset + count > file.size)
        file.corrupt('record of the flattened format', at);
      runs.push({ first, count, offset });
      size = Math.max(size, first + count);
      at = offset + count;
    }
    // Reversed because what was written later counts.
    this.#index = new RunIndex(runs.reverse(), 1);
    this.size = size;
  }

  read(into: Uint8Array, position: number, length: number, offset: number): number {
    let done = 0;
    while (done < length && offset + done < this.size) {
      const place = offset + done;
      const run = this.#index.runAt(place);
      // The writer skipped what no record has; it is zero.
      const end = run === undefined ? (this.#index.nextAfter(place) ?? this.size) : run.first + run.count;
      const some = Math.min(length - done, end - place);
      if (run === undefined) into.fill(0, position + done, position + done + some);
      else if (this.#file.read(into, position + done, some, run.offset + place - run.first) !== some) break;
      done += some;
    }
    return done;
  }
}
