import { execFileSync } from 'node:child_process';
import test from 'ava';
import fc from 'fast-check';
import { unitOffsetAt } from '../../../extractor/dwarf/address-ranges.ts';
import { DwarfFile } from '../../../extractor/dwarf/dwarf-file.ts';
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import type { KernelFile } from '../../../extractor/elf/kernel-file.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { requireKernel } from '../../../kernels/cache.ts';
import { program } from './compilers.ts';

const CORE = 'struct rq { int a, b; } rq; void schedule(void) { rq.a = 1; }';
const OTHER = 'struct rq { long a, b; } r; int main(void) { return 0; }';
const REQUEST = { structs: ['rq'], enums: [], required: ['rq'] };

test("a real kernel's units by address, as readelf prints the table", async (t) => {
  await using file = await openKernelFile(requireKernel('debian-6.1-cloud').vmlinux);
  const table = file.section('.debug_aranges')!.read();
  const printed = execFileSync('readelf', ['--debug-dump=aranges', file.elfPath!], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let unit = -1;
  let ranges = 0;
  for (const line of printed.split('\n')) {
    const offset = /Offset into \.debug_info:\s+(\w+)/.exec(line);
    if (offset) unit = Number(offset[1]);
    const [, start, length] = /^\s+([0-9a-f]{16}) ([0-9a-f]{16})\s*$/.exec(line) ?? [];
    if (start === undefined || BigInt(`0x${length}`) === 0n) continue;
    ranges++;
    const first = BigInt(`0x${start}`);
    t.is(unitOffsetAt(table, first), unit);
    t.is(unitOffsetAt(table, first + BigInt(`0x${length}`) - 1n), unit);
  }
  t.true(ranges > 1000, `${ranges}`);
  t.is(unitOffsetAt(table, 0n), null);
});

test('the unit with the code is found before any other is read', async (t) => {
  const path = program(t, { 'drivers/first.c': OTHER, 'kernel/sched/core.c': CORE });
  await using file = await openKernelFile(path, { debugRoots: [] });
  const unit = new DwarfFile(file).unitWithCode(file.lookup(['schedule']).get('schedule')!.address)!;
  const dwarf = new DwarfFile(file);
  const expected = [...dwarf.units()].find((other) => /core/.test(dwarf.unitName(other)!))!;
  t.deepEqual({ ...unit, home: null }, { ...expected, home: null });
  t.is(new DwarfFile(file).unitWithCode(0n), null);
});

test('a table that lies or is none changes nothing', async (t) => {
  const path = program(t, { 'drivers/first.c': OTHER, 'kernel/sched/core.c': CORE });
  await using file = await openKernelFile(path, { debugRoots: [] });
  const honest = file.section('.debug_aranges')!.read();
  const truth = await dwarfEngine.extract(file, REQUEST);
  const lies = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc
      .tuple(fc.nat(honest.length - 1), fc.nat(255))
      .map(([at, byte]) => honest.map((old, i) => (i === at ? byte : old))),
  );
  await fc.assert(
    fc.asyncProperty(lies, async (table) => {
      t.deepEqual(await dwarfEngine.extract(withRanges(file, table), REQUEST), truth);
    }),
    { numRuns: 150 },
  );
});

function withRanges(file: KernelFile, table: Uint8Array): KernelFile {
  const section = { name: '.debug_aranges', size: table.length, address: 0n, read: () => table };
  return new Proxy(file, {
    get: (_, key) =>
      key === 'section'
        ? (name: string) => (name === section.name ? section : file.section(name))
        : bound(file, key as keyof KernelFile),
  });
}

function bound(file: KernelFile, key: keyof KernelFile): unknown {
  const value = file[key];
  return typeof value === 'function' ? value.bind(file) : value;
}
