import { readFileSync } from 'node:fs';
import test from 'ava';
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import type { ExtractRequest } from '../../../extractor/engine.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { fuzzInProcess } from '../fuzz-process.ts';
import { program } from './compilers.ts';
import { memoryFile } from './memory-file.ts';

const REQUEST: ExtractRequest = { structs: ['rq'], enums: [], required: ['rq'] };

function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
}

/** One DWARF 4 unit: a root entry, then `entries`. */
function unit(entries: string): Uint8Array {
  const body = `0400 00000000 08 01 ${entries} 00`;
  const length = hex(body).length;
  const head = Buffer.alloc(4);
  head.writeUInt32LE(length);
  return Uint8Array.from([...head, ...hex(body)]);
}

// Code 1: unit. 2: struct (name, byte_size, children). 3: member (name, ref4 type, data1 location).
// 4: typedef (name, ref4 type). 5: struct without children. 6: array (ref4 type), 7: subrange (udata upper_bound).
const ABBREV = hex(`
  01 11 01 00 00
  02 13 01 03 08 0b 0b 00 00
  03 0d 00 03 08 49 13 38 0b 00 00
  04 16 00 03 08 49 13 00 00
  05 13 00 03 08 0b 0b 00 00
  06 01 01 49 13 00 00
  07 21 00 2f 0f 00 00
  00`);
const RQ = '02 727100 08';

async function refusal(info: Uint8Array, abbrev = ABBREV): Promise<ExtractError> {
  try {
    await dwarfEngine.extract(memoryFile({ '.debug_info': info, '.debug_abbrev': abbrev }), REQUEST);
  } catch (error) {
    if (error instanceof ExtractError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

test('the hand-made unit is one that can be read', async (t) => {
  const info = unit(`${RQ} 03 6100 1a000000 00 00 05 6900 04`);
  const { structs } = await dwarfEngine.extract(
    memoryFile({ '.debug_info': info, '.debug_abbrev': ABBREV }),
    REQUEST,
  );
  t.is(structs.rq!.size, 8);
  t.like(structs.rq!.members[0], { name: 'a', offset: 0, type: 'struct i', size: 4 });
});

test('headers that cannot be are refused at their offset', async (t) => {
  const good = unit(`${RQ} 00`);
  const after = `0x${good.length.toString(16)}`;
  for (const [what, second] of [
    ['a section that ends in a header', '08'],
    ['a unit longer than the section', 'ff000000 0400 00000000 08 00'],
    ['a unit without room for its header', '02000000 0400 00000000 08 00'],
    ['a reserved length', 'f5ffffff 0400 00000000 08 00'],
    ['64-bit DWARF that ends in the header', 'ffffffff 0400 00000000 08 00 00'],
    ['a version that is none', '08000000 0900 00000000 08 00'],
    ['an abbreviation table outside the section', '08000000 0400 00100000 08 01'],
    ['a root that is no unit', `08000000 0400 00000000 08 05`],
  ] as const) {
    const error = await refusal(Uint8Array.from([...good, ...hex(second)]));
    t.is(error.code, 'corrupt-dwarf', what);
    t.true(error.message.includes(`at ${after} of .debug_info`), `${what}: ${error.message}`);
    t.is(error.details.section, '.debug_info');
    t.is(error.details.offset, good.length);
  }
});

test('entries that cannot be are refused at their offset', async (t) => {
  // The unit's header takes 11 bytes, its root 1, the structure's own entry 5: the first member is at 17. A child
  // that is no entry is the fault of the one before it.
  for (const [what, entries, offset] of [
    ['a member whose type is outside the unit', `${RQ} 03 6100 ff000000 00 00`, 17],
    ['a member whose type is in a header', `${RQ} 03 6100 02000000 00 00`, undefined],
    ['an abbreviation that is not in the table', `${RQ} 55`, 12],
    ['a structure that contains itself', `${RQ} 03 6100 0c000000 00 00`, undefined],
    ['a typedef of itself', `${RQ} 03 6100 1a000000 00 00 04 7400 1a000000`, undefined],
    [
      'an array larger than any memory',
      `${RQ} 03 6100 1a000000 00 00 06 0c000000 07 ffffffffffffff7f 00`,
      undefined,
    ],
    ['a member beyond the structure', `${RQ} 03 6100 1a000000 09 00 05 6900 04`, undefined],
    ['a name without end', '02 72717273', undefined],
  ] as const) {
    const error = await refusal(unit(entries));
    t.is(error.code, 'corrupt-dwarf', what);
    if (offset !== undefined) t.is(error.details.offset, offset, error.message);
  }
});

test('types that overlap each other cost no more than the unit is long', async (t) => {
  // A thousand structures, each with a thousand members whose types lie in the middle of other entries.
  const members = Array.from({ length: 1000 }, (_, index) => {
    const target = Buffer.alloc(4);
    target.writeUInt32LE(12 + 9 * index);
    return `03 0300 ${target.toString('hex')} 00`;
  });
  const error = await refusal(unit(`${RQ} ${members.join(' ')} 00`));
  t.is(error.code, 'corrupt-dwarf');
});

test('a file cut anywhere is read or refused', async (t) => {
  const path = program(t, {
    'a.c': 'struct rq { struct { int a; } b[2]; enum e { X } e; } rq; int main(void) {}',
  });
  await using file = await openKernelFile(path, { debugRoots: [] });
  const names = ['.debug_info', '.debug_abbrev', '.debug_str', '.debug_line_str'];
  const sections = Object.fromEntries(names.map((name) => [name, file.section(name)!.read()]));
  let refused = 0;
  for (const name of names) {
    for (let length = 0; length < sections[name]!.length; length++) {
      const cut = memoryFile({ ...sections, [name]: sections[name]!.subarray(0, length) });
      try {
        const { structs } = await dwarfEngine.extract(cut, REQUEST);
        t.is(structs.rq!.size, 12);
      } catch (error) {
        if (!(error instanceof ExtractError)) throw error;
        refused++;
        t.true(
          ['corrupt-dwarf', 'no-debug-information', 'struct-not-found'].includes(error.code),
          error.code,
        );
      }
    }
  }
  t.true(refused > sections['.debug_info']!.length);
});

test('mutated DWARF is read or refused, in bounded memory', async (t) => {
  const report = await fuzzInProcess('dwarf/fuzz.ts', 2000, 20_061);
  t.log(JSON.stringify(report));
  t.true((report.outcomes['corrupt-dwarf'] ?? 0) > 500);
  t.true((report.outcomes.accepted ?? 0) > 100);
  t.true(report.peakRss < 600 * 2 ** 20, `${report.peakRss} bytes`);
});

test('the module reaches nothing outside its memory', (t) => {
  const bytes = readFileSync(new URL('../../../dist/wasm/libdwarf.wasm', import.meta.url));
  const module = new WebAssembly.Module(bytes);
  const { imports } = WebAssembly.Module as unknown as {
    imports(module: WebAssembly.Module): { module: string; name: string }[];
  };
  t.deepEqual(
    imports(module).map(({ name }) => name),
    ['fd_close', 'fd_fdstat_get', 'fd_seek', 'fd_write'],
  );
});
