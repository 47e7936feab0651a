import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { PaperWay } from './paper-way.ts';

const PAGE = 4096;
const mode = { split: [9, 9, 9, 9, 12], physicalBits: 46, noExecute: true, largePages: [2, 3] };

/** A guest's memory whose topmost table is its page 1. */
function memory(words: readonly (readonly [address: number, value: bigint])[], pages: number): string {
  const bytes = Buffer.alloc(pages * PAGE);
  for (const [address, value] of words) bytes.writeBigUInt64LE(value, address);
  const file = path.join(mkdtempSync(path.join(tmpdir(), 'domsched-paper-')), 'memory');
  writeFileSync(file, bytes);
  return file;
}

test('a word is found through four levels of page tables, small pages and large ones', (t) => {
  const address = 0x7f12_3456_7abcn & ~7n;
  const index = (level: number) => 8 * Number((address >> BigInt(12 + 9 * (level - 1))) & 0x1ffn);
  const inPage = Number(address % BigInt(PAGE));
  const present = 1n;
  const noExecute = 1n << 63n;
  const entry = (page: number) => BigInt(page * PAGE) | present;
  const tables = [
    [PAGE + index(4), entry(2)],
    [2 * PAGE + index(3), entry(3)],
  ] as const;
  const small = memory(
    [
      ...tables,
      [3 * PAGE + index(2), entry(4)],
      [4 * PAGE + index(1), entry(5) | noExecute],
      [5 * PAGE + inPage, 42n],
    ],
    6,
  );
  t.teardown(() => rmSync(path.dirname(small), { recursive: true }));
  {
    using paper = new PaperWay(small, { root: PAGE, mode });
    t.is(paper.translate(address), BigInt(5 * PAGE + inPage));
    t.is(paper.word(address), 42n);
    t.throws(() => paper.translate(address + 0x1000n), { instanceOf: RangeError });
  }
  // The entry of the second level maps 2 MiB, from 0 on.
  const within = Number(address % 0x20_0000n);
  const large = memory([...tables, [3 * PAGE + index(2), present | (1n << 7n)], [within, 43n]], 513);
  t.teardown(() => rmSync(path.dirname(large), { recursive: true }));
  using paper = new PaperWay(large, { root: PAGE, mode });
  t.is(paper.translate(address), BigInt(within));
  t.is(paper.word(address), 43n);
});
