import test from 'ava';
import { addressOf, ProcessMemory } from '../../../../runtime/hypervisor/process-memory.ts';
import {
  type BlockPart,
  hasKernel,
  possibleRoots,
  provePlacement,
  provePlugged,
} from '../../../../runtime/hypervisor/vmm/guest-tables.ts';
import {
  blockOffset,
  type Placement,
  piecesOf,
  placements,
} from '../../../../runtime/hypervisor/vmm/place-ram.ts';

const PAGE = 4096;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** Of entries: present, writable, a large page. */
const TABLE = 3n;
const LARGE = 0x83n;

/** Memory that is there where it is written only, as a guest's is that uses little of much. */
class SparseBlock {
  readonly length: number;
  readonly bytes: Uint8Array;

  constructor(length: number) {
    this.length = length;
    this.bytes = new Uint8Array(new ArrayBuffer(length));
  }

  get part() {
    return { memory: new ProcessMemory(), address: addressOf(this.bytes), length: this.length };
  }

  get block() {
    return { parts: [this.part], length: this.length };
  }

  /** Its bytes as memory nodes of these sizes. */
  nodes(...sizes: readonly number[]) {
    let start = 0;
    return sizes.map((length) => {
      const part = { ...this.part, address: this.part.address + start, length };
      start += length;
      return part;
    });
  }
}

interface Tables {
  readonly placement: Placement;
  readonly memory: SparseBlock;
  put(table: number, index: number, entry: bigint): void;
}

/** A guest's memory with the tables of a kernel of four levels, and those of programs, by the SDM's own layout. */
function kernelIn(placement: Placement, programs: number, theirTables?: number): Tables {
  const memory = new SparseBlock(placement.total);
  const view = new DataView(memory.bytes.buffer);
  const tables: Tables = {
    placement,
    memory,
    put(table, index, entry) {
      const at = blockOffset(placement, table);
      if (at < 0) throw new Error(`no RAM at ${table.toString(16)}`);
      view.setBigUint64(at + 8 * index, entry, true);
    },
  };
  const { put } = tables;
  const [root, image, imagePages, all] = [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000];
  put(root, 511, BigInt(image) | TABLE);
  put(image, 510, BigInt(imagePages) | TABLE);
  put(imagePages, 8, BigInt(16 * MIB) | LARGE);
  // All memory at 0xffff888000000000: slot 273. A page of tables for each GiB, of pages of 2 MiB, taken from 2 MiB on.
  put(root, 273, BigInt(all) | TABLE);
  const high = placement.total - placement.low;
  const spans = [
    [0, placement.low],
    [4 * GIB, 4 * GIB + high],
  ] as const;
  for (const [start, end] of spans) {
    for (let at = start; at < end; at += 2 * MIB) {
      const gib = Math.floor(at / GIB);
      const pages = 2 * MIB + gib * PAGE;
      put(all, gib, BigInt(pages) | TABLE);
      put(pages, (at % GIB) / (2 * MIB), BigInt(at) | LARGE);
    }
  }
  for (let program = 0; program < programs; program++) {
    const own = 3 * MIB + program * PAGE;
    const theirs = (theirTables ?? (high > 0 ? 4 * GIB : 5 * MIB)) + program * PAGE;
    put(own, 511, BigInt(image) | TABLE);
    put(own, 0, BigInt(theirs) | TABLE);
    put(theirs, 0, BigInt(6 * MIB) | TABLE);
  }
  return tables;
}

/** @param roots offsets in the memory, whose parts follow each other */
function proves(
  { parts }: { parts: readonly BlockPart[] },
  placement: Placement,
  roots: readonly number[],
): boolean {
  return provePlacement(parts, placement, placesIn(parts, roots)) !== undefined;
}

function placesIn(parts: readonly BlockPart[], roots: readonly number[]) {
  return roots.map((root) => {
    let offset = root;
    const part = parts.findIndex(({ length }) => {
      if (offset < length) return true;
      offset -= length;
      return false;
    });
    return { part, offset };
  });
}

const everyPage = (length: number) => [{ first: 0, count: length / PAGE }];

test('a machine below its hole, and one around it: the only placement that the tables prove is theirs', (t) => {
  const small = kernelIn({ low: 64 * MIB, total: 64 * MIB }, 2);
  const { block } = small.memory;
  const roots = possibleRoots(small.memory.part, everyPage(block.length), block.length);
  t.true(roots.includes(0x10_0000));
  t.true(proves(block, small.placement, roots));

  const total = 1.0625 * GIB;
  const split = kernelIn({ low: GIB, total }, 8);
  // Before all programs, what could be a topmost table by its last entry, and is anything else.
  const decoy = new DataView(split.memory.bytes.buffer, 0x10_8000, PAGE);
  for (let i = 0; i < 512; i++) decoy.setBigUint64(8 * i, BigInt(4 * GIB + i * PAGE) | TABLE, true);
  const big = split.memory.block;
  const found = possibleRoots(split.memory.part, [{ first: 0, count: 4 * 256 }], total);
  const proved = placements(total).filter((placement) => proves(big, placement, found));
  t.deepEqual(proved, [{ low: GIB, total }]);
});

test('memory above the hole in which nothing is where the tables say is not believed', (t) => {
  const total = 1.0625 * GIB;
  const split = kernelIn({ low: GIB, total }, 8);
  split.memory.bytes.fill(0, GIB);
  const { block } = split.memory;
  t.false(
    proves(block, split.placement, possibleRoots(split.memory.part, [{ first: 0, count: 4 * 256 }], total)),
  );
});

test('memory nodes: their order is the one in which the tables of programs are where they should be', (t) => {
  const total = 96 * MIB;
  const placement = { low: total, total };
  const { memory } = kernelIn(placement, 8, 40 * MIB);
  const roots = possibleRoots(memory.part, [{ first: 0, count: 4 * 256 }], total);
  const [first, second, third] = memory.nodes(32 * MIB, 32 * MIB, 32 * MIB);
  const proved = (...parts: readonly BlockPart[]) => proves({ parts }, placement, roots);
  t.false(proved(first!, third!, second!), 'the second and the third changed places');
  t.false(proved(second!, first!, third!), 'the kernel is not where its own tables say');
  t.false(proved(first!, second!, third!), 'nothing tells that the third is in its place');
  const [big, small] = memory.nodes(32 * MIB, 64 * MIB);
  t.true(proved(big!, small!));
});

test('a kernel whose memory lies elsewhere is told from tables that are of no 64-bit kernel', (t) => {
  const total = 64 * MIB;
  const elsewhere = kernelIn({ low: total, total }, 2);
  const shorter = { low: total / 2, total: total / 2 };
  const roots = placesIn([elsewhere.memory.part], [0x10_0000]);
  t.is(provePlacement([elsewhere.memory.part], shorter, roots), undefined);
  t.true(hasKernel([elsewhere.memory.part], shorter, roots));

  // A 32-bit kernel's tables are of the same form (PAE), three levels deep: the last entries of the lower two lead to
  // its own memory and to vmalloc's (Intel SDM vol. 3A, 4.4).
  const memory = new SparseBlock(total);
  const view = new DataView(memory.bytes.buffer);
  const [directory, pages] = [0x10_0000, 0x10_1000];
  for (let i = 384; i < 512; i++)
    view.setBigUint64(directory + 8 * i, BigInt((i - 384) * 2 * MIB) | LARGE, true);
  view.setBigUint64(directory + 8 * 511, BigInt(pages) | TABLE, true);
  for (let i = 0; i < 512; i++) view.setBigUint64(pages + 8 * i, BigInt(8 * MIB + i * PAGE) | TABLE, true);
  const theirs = possibleRoots(memory.part, everyPage(total), total);
  t.deepEqual(theirs, [directory, pages]);
  t.false(hasKernel([memory.part], { low: total, total }, placesIn([memory.part], theirs)));
});

test('tables that lead in circles, or nowhere, come to an end', (t) => {
  const total = 64 * MIB;
  const memory = new SparseBlock(total);
  const view = new DataView(memory.bytes.buffer);
  // Every entry of every page is a table: itself, or the next one.
  for (let page = 0; page < total / PAGE; page += 16) {
    for (let i = 0; i < 512; i++) {
      view.setBigUint64(
        page * PAGE + 8 * i,
        BigInt(((page + (i % 2)) % (total / PAGE)) * PAGE || PAGE) | TABLE,
        true,
      );
    }
  }
  const { block } = memory;
  const roots = possibleRoots(memory.part, everyPage(total), total);
  t.true(roots.length > 0);
  t.false(proves(block, { low: total, total }, roots));
});

/** A machine of 64 MiB below its hole, into which 32 MiB were plugged at 4 GiB, and used for tables of programs if so. */
function pluggedMachine(programs: number) {
  const placement = { low: 64 * MIB, total: 64 * MIB };
  const tables = kernelIn(placement, 2);
  const dimm = new SparseBlock(32 * MIB);
  const view = new DataView(dimm.bytes.buffer);
  const pages = 7 * MIB;
  tables.put(0x10_3000, 4, BigInt(pages) | TABLE);
  for (let i = 0; i < 16; i++) tables.put(pages, i, BigInt(4 * GIB + 2 * MIB * i) | LARGE);
  for (let program = 0; program < programs; program++) {
    const own = 8 * MIB + program * PAGE;
    tables.put(own, 511, BigInt(0x10_1000) | TABLE);
    tables.put(own, 0, BigInt(4 * GIB + program * PAGE) | TABLE);
    view.setBigUint64(program * PAGE, BigInt(6 * MIB) | TABLE, true);
  }
  const roots = possibleRoots(tables.memory.part, everyPage(64 * MIB), 64 * MIB);
  const places = roots.map((offset) => ({ part: 0, offset }));
  const parts = [tables.memory.part];
  return { parts, placement, places, dimm, proof: provePlacement(parts, placement, places) };
}

test('memory that was plugged lies apart and leaves the proof of all other memory as it is', (t) => {
  const { proof } = pluggedMachine(8);
  t.deepEqual(proof?.plugged, [{ start: 4 * GIB, end: 4 * GIB + 32 * MIB }]);
});

test('where plugged memory is in the process is told by tables of programs in it, and by nothing less', (t) => {
  const isIn = (
    block: SparseBlock,
    at: number,
    { parts, placement, places, proof }: ReturnType<typeof pluggedMachine>,
  ) => {
    const piece = { first: at / PAGE, count: block.length / PAGE, part: 1, offset: 0 };
    return provePlugged([...parts, block.part], [...piecesOf(placement, parts), piece], places, proof!);
  };
  const used = pluggedMachine(8);
  t.true(isIn(used.dimm, 4 * GIB, used));
  t.false(isIn(used.dimm, 4 * GIB + 16 * MIB, used), 'elsewhere');
  t.false(isIn(new SparseBlock(32 * MIB), 4 * GIB, used), 'other memory');
  const unused = pluggedMachine(0);
  t.deepEqual(unused.proof?.plugged.length, 1);
  t.false(isIn(unused.dimm, 4 * GIB, unused), 'no program uses it');
});
