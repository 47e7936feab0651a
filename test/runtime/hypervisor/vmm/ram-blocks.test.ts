import process from 'node:process';
import test from 'ava';
import { addressOf } from '../../../../runtime/hypervisor/process-memory.ts';
import type { ProcessMap } from '../../../../runtime/hypervisor/qemu/process-maps.ts';
import { filledPages, joined } from '../../../../runtime/hypervisor/vmm/ram-blocks.ts';

const PAGE = 4096;

function map(start: number, pages: number, more: Partial<ProcessMap> = {}): ProcessMap {
  return {
    start: start * PAGE,
    end: (start + pages) * PAGE,
    readable: true,
    writable: true,
    executable: false,
    shared: false,
    offset: 0,
    major: 0,
    minor: 0,
    inode: 0,
    ...more,
  };
}

test('mappings that follow each other are one block; others, guards and code are not', (t) => {
  const file = { shared: true, inode: 7, minor: 1 };
  const blocks = joined([
    map(10, 4),
    map(14, 4),
    map(18, 1, { readable: false, writable: false }),
    map(19, 2, { executable: true }),
    map(21, 2),
    map(30, 4, { ...file, offset: 0 }),
    map(34, 4, { ...file, offset: 4 * PAGE }),
    map(38, 4, { ...file, offset: 4 * PAGE }),
    map(42, 4, { ...file, inode: 8, offset: 8 * PAGE }),
  ]);
  t.deepEqual(
    blocks.map(({ start, length }) => [start / PAGE, length / PAGE]),
    [
      [10, 8],
      [21, 2],
      [30, 8],
      [38, 4],
      [42, 4],
    ],
  );
});

test('pages that were never written are told from those that were, and stay so', (t) => {
  const bytes = new Uint8Array(new ArrayBuffer(64 * 2 ** 20));
  const start = Math.ceil(addressOf(bytes) / PAGE) * PAGE;
  const at = (page: number) => start - addressOf(bytes) + page * PAGE;
  const count = 8_192;
  const filled = () => [...filledPages(process.pid, start, count * PAGE)].flatMap(pagesOf);
  const before = new Set(filled());
  bytes[at(5_000)] = 1;
  bytes[at(8_191)] = 1;
  const after = filled();
  t.true(after.includes(5_000) && after.includes(8_191));
  t.true(before.size < count, 'fresh memory has nothing in it');
  t.true(after.every((page) => page < count));
});

function pagesOf({ first, count }: { first: number; count: number }): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}
