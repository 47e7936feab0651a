import { closeSync, openSync, readSync } from 'node:fs';
import { FRAME_SIZE } from '../frame.ts';
import { ProcessMemory } from '../process-memory.ts';
import { fileOf } from '../qemu/memory-file.ts';
import type { ProcessMap } from '../qemu/process-maps.ts';
import { processMaps } from '../qemu/process-maps.ts';
import type { RamSource } from '../qemu/ram.ts';

/** No machine has less RAM: no kernel that we know boots with it. */
const MIN_BYTES = 32 * 1024 * 1024;
/** Most candidates of one process, the biggest first. */
const MAX_BLOCKS = 8;

/** Memory of a process that may be all or part of its guest's RAM. */
export interface RamBlock {
  /** Address in the process. */
  readonly start: number;
  readonly length: number;
  /** The first of its mappings. The others have the same file, if it has one. */
  readonly map: ProcessMap;
}

/**
 * Memory that may contain a guest's RAM, the biggest piece first: readable, writable, not executable, and contiguous in
 * the process and in its file, if any. These are only candidates; their content decides.
 */
export function ramBlocks(pid: number): RamBlock[] {
  return blocksIn(processMaps(pid));
}

/** As {@link ramBlocks}, of mappings that somebody has read. */
export function blocksIn(maps: readonly ProcessMap[]): RamBlock[] {
  return joined(maps)
    .filter(({ length }) => length >= MIN_BYTES)
    .sort((a, b) => b.length - a.length)
    .slice(0, MAX_BLOCKS);
}

/** Joins successive pieces: the kernel splits a mapping where its flags differ (for example a memory policy). */
export function joined(maps: readonly ProcessMap[]): RamBlock[] {
  const blocks: RamBlock[] = [];
  let before: ProcessMap | undefined;
  for (const map of maps) {
    const last = blocks.at(-1);
    const usable = map.readable && map.writable && !map.executable;
    if (usable && last !== undefined && before !== undefined && follows(before, map)) {
      blocks[blocks.length - 1] = { ...last, length: map.end - last.start };
    } else if (usable) {
      blocks.push({ start: map.start, length: map.end - map.start, map });
    }
    before = usable ? map : undefined;
  }
  return blocks;
}

function follows(before: ProcessMap, map: ProcessMap): boolean {
  const sameFile = before.inode === map.inode && before.major === map.major && before.minor === map.minor;
  if (before.end !== map.start || !sameFile || before.shared !== map.shared) return false;
  return map.inode === 0 || map.offset === before.offset + (before.end - before.start);
}

/**
 * Opens a block: through the file that the kernel has mapped there, shared and writable, if there is one; otherwise as
 * the process's own memory. Whatever the process does, it cannot make us write what it cannot write itself.
 * @param previous mapping to use again
 * @returns the address of the block's first byte in that memory
 */
export function openBlock(
  pid: number,
  { start, length, map }: RamBlock,
  previous: RamSource['mapping'] = undefined,
): Pick<RamSource, 'memory' | 'mapping'> & { readonly address: number } {
  const known = previous === undefined ? [] : [previous];
  const mapping = map.shared && map.inode !== 0 ? fileOf(pid, map, known) : undefined;
  const offset = map.offset + (start - map.start);
  if (mapping !== undefined && offset + length <= mapping.length) {
    return { memory: new ProcessMemory(), mapping, address: mapping.address + offset };
  }
  if (mapping !== undefined && mapping !== previous) mapping.close();
  return { memory: new ProcessMemory(pid), mapping: undefined, address: start };
}

/** Bits of an entry of `/proc/PID/pagemap` (Linux admin-guide/mm/pagemap): page in memory, page on swap. */
const PRESENT_HIGH = 0x8000_0000;
const SWAPPED_HIGH = 0x4000_0000;
const ENTRY_BYTES = 8;
const CHUNK_ENTRIES = 32_768;

/**
 * Pages of a range that the process has, as runs of page numbers within the range. Reading a page that it does not have
 * would allocate it, so a guest that uses a part of its memory would take all of it from the host.
 * @yields runs, ascending; the whole range if the kernel does not tell
 */
export function* filledPages(pid: number, start: number, length: number): Generator<PageRun> {
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/pagemap`, 'r');
  } catch {
    yield { first: 0, count: length / FRAME_SIZE };
    return;
  }
  try {
    yield* filledIn(fd, start, length);
  } finally {
    closeSync(fd);
  }
}

/** Successive pages. */
export interface PageRun {
  readonly first: number;
  readonly count: number;
}

/** As {@link filledPages}. @param fd of `/proc/PID/pagemap` */
export function* filledIn(fd: number, start: number, length: number): Generator<PageRun> {
  const pages = length / FRAME_SIZE;
  const bytes = Buffer.alloc(CHUNK_ENTRIES * ENTRY_BYTES);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  for (let done = 0; done < pages; done += CHUNK_ENTRIES) {
    const wanted = Math.min(CHUNK_ENTRIES, pages - done);
    const read = readSync(fd, bytes, 0, wanted * ENTRY_BYTES, (start / FRAME_SIZE + done) * ENTRY_BYTES);
    const entries = read / ENTRY_BYTES;
    let first = -1;
    for (let i = 0; i <= entries; i++) {
      const filled = i < entries && (words[2 * i + 1]! & (PRESENT_HIGH | SWAPPED_HIGH)) !== 0;
      if (filled && first < 0) first = i;
      if (filled || first < 0) continue;
      yield { first: done + first, count: i - first };
      first = -1;
    }
    // The memory or the process is gone.
    if (entries < wanted) return;
  }
}
