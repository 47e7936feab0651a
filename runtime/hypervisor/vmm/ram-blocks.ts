import { closeSync, openSync, readSync } from 'node:fs';
import { FRAME_SIZE } from '../frame.ts';
import { ProcessMemory } from '../process-memory.ts';
import { fileOf } from '../qemu/memory-file.ts';
import type { ProcessMap } from '../qemu/process-maps.ts';
import { processMaps } from '../qemu/process-maps.ts';
import type { RamSource } from '../qemu/ram.ts';

/** Less than this is no machine's RAM: a kernel that we know does not boot with it. */
const MIN_BYTES = 32 * 1024 * 1024;
/** Memory that one process may have as candidates: the biggest come first. */
const MAX_BLOCKS = 8;

/** Memory of a process that may be the RAM of its guest, or a part of it. */
export interface RamBlock {
  /** In the process. */
  readonly start: number;
  readonly length: number;
  /** The first of its mappings; all others are of the same file, where they are of any. */
  readonly map: ProcessMap;
}

/**
 * Memory that a guest's RAM may be in, the biggest piece first: what can be read and written and not executed, and is
 * contiguous in the process, and in its file where there is one. Candidates and no more: what is in them decides.
 */
export function ramBlocks(pid: number): RamBlock[] {
  return joined(processMaps(pid))
    .filter(({ length }) => length >= MIN_BYTES)
    .sort((a, b) => b.length - a.length)
    .slice(0, MAX_BLOCKS);
}

/** The kernel splits a mapping where its flags differ (a memory policy, say): pieces that follow each other are one. */
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
 * Opens a block: through the file that the kernel has mapped there, shared and writable, where there is one, else by the
 * process's own memory. Whatever the process does meanwhile, it makes us write nothing that it cannot write itself.
 * @param previous whose mapping is used again
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

/** Bits of an entry of `/proc/PID/pagemap` (Linux admin-guide/mm/pagemap): in memory, or on swap. */
const PRESENT_HIGH = 0x8000_0000;
const SWAPPED_HIGH = 0x4000_0000;
const ENTRY_BYTES = 8;
const CHUNK_ENTRIES = 32_768;

/**
 * Pages of a range that the process has, as runs of page numbers within the range. To read one that it does not have
 * would make it one: a guest that uses a part of its memory would take all of the host's.
 * @yields ascending; all of it where the kernel does not tell
 */
export function* filledPages(
  pid: number,
  start: number,
  length: number,
): Generator<{ readonly first: number; readonly count: number }> {
  const pages = length / FRAME_SIZE;
  let fd: number;
  try {
    fd = openSync(`/proc/${pid}/pagemap`, 'r');
  } catch {
    yield { first: 0, count: pages };
    return;
  }
  try {
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
      // The memory is gone, or the process.
      if (entries < wanted) return;
    }
  } finally {
    closeSync(fd);
  }
}
