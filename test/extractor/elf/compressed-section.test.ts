import { writeFileSync } from 'node:fs';
import { deflateSync, zstdCompressSync } from 'node:zlib';
import test from 'ava';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { buildElf, compressed, SHF_COMPRESSED } from './build-elf.ts';
import { refusal, scratch } from './scratch.ts';
import { tool } from './tools.ts';

for (const kind of ['zlib', 'zlib-gnu', 'zstd']) {
  test(`debug sections as objcopy compresses them with ${kind}`, async (t) => {
    const at = scratch(t);
    writeFileSync(
      at('k.c'),
      `${Array.from({ length: 60 }, (_, i) => `struct s${i} { int a${i}; struct s${i} *next; } v${i};`).join('\n')}\nint main(void) { return 0; }\n`,
    );
    tool('gcc', '-g', '-o', at('plain'), at('k.c'));
    tool('objcopy', `--compress-debug-sections=${kind}`, at('plain'), at('packed'));
    t.regex(tool('readelf', '-SW', at('packed')), kind === 'zlib-gnu' ? /\.zdebug_info/ : / C {2}/);
    await using plain = await openKernelFile(at('plain'));
    await using packed = await openKernelFile(at('packed'));
    t.deepEqual([...packed.sectionNames].sort(), [...plain.sectionNames].sort());
    for (const name of plain.sectionNames.filter((name) => name.startsWith('.debug_'))) {
      const expected = plain.section(name)!;
      const section = packed.section(name)!;
      t.is(section.name, name);
      t.is(section.size, expected.size);
      t.true(Buffer.from(expected.read()).equals(section.read()), name);
      t.true(Buffer.from(expected.read(5, 9)).equals(section.read(5, 9)), name);
    }
    // What is handed out belongs to the caller.
    packed.section('.debug_info')!.read().fill(0);
    t.true(Buffer.from(plain.section('.debug_info')!.read()).equals(packed.section('.debug_info')!.read()));
  });
}

test('compression headers that lie', async (t) => {
  const at = scratch(t);
  const text = Buffer.from('debug strings '.repeat(100));
  const zlib = deflateSync(text);
  const zstd = zstdCompressSync(text);
  const old = (declared: bigint, magic = 'ZLIB'): Buffer => {
    const header = Buffer.from(`${magic}........`);
    header.writeBigUInt64BE(declared, 4);
    return Buffer.concat([header, zlib]);
  };
  const size = BigInt(text.length);
  const cases: [string, string, Buffer, string | null][] = [
    ['honest zlib', '.debug_str', compressed(1, size, zlib), null],
    ['honest zstd', '.debug_str', compressed(2, size, zstd), null],
    ['honest old', '.zdebug_str', old(size), null],
    ['nothing in it', '.debug_str', compressed(1, 0n, deflateSync(Buffer.alloc(0))), null],
    ['one byte less', '.debug_str', compressed(1, size - 1n, zlib), 'corrupt-elf'],
    ['one byte more', '.debug_str', compressed(2, size + 1n, zstd), 'corrupt-elf'],
    ['declared empty', '.debug_str', compressed(1, 0n, zlib), 'corrupt-elf'],
    ['declared endless', '.debug_str', compressed(1, 2n ** 63n, zlib), 'corrupt-elf'],
    ['declared a gigabyte', '.debug_str', compressed(1, 2n ** 30n, zlib), 'corrupt-elf'],
    ['unknown kind', '.debug_str', compressed(7, size, zlib), 'unsupported-compression'],
    ['other kind', '.debug_str', compressed(2, size, zlib), 'corrupt-elf'],
    ['cut stream', '.debug_str', compressed(1, size, zlib.subarray(0, 20)), 'corrupt-elf'],
    ['cut zstd stream', '.debug_str', compressed(2, size, zstd.subarray(0, 20)), 'corrupt-elf'],
    ['no room', '.debug_str', Buffer.alloc(23), 'corrupt-elf'],
    ['old without magic', '.zdebug_str', old(size, 'ZLIP'), 'corrupt-elf'],
    ['old, endless', '.zdebug_str', old(2n ** 64n - 1n), 'corrupt-elf'],
    ['old, no room', '.zdebug_str', Buffer.from('ZLIB'), 'corrupt-elf'],
  ];
  for (const [what, name, bytes, code] of cases) {
    writeFileSync(at('k'), buildElf([{ name, flags: name === '.debug_str' ? SHF_COMPRESSED : 0n, bytes }]));
    t.is(await refusal(at('k')), code as never, what);
  }
});

test('a bomb in a section stops at its bound', async (t) => {
  const at = scratch(t);
  const zeroes = Buffer.alloc(64 << 20);
  for (const [type, stream] of [
    [1, deflateSync(zeroes)],
    [2, zstdCompressSync(zeroes)],
  ] as const) {
    writeFileSync(
      at('k'),
      buildElf([
        { name: '.debug_str', flags: SHF_COMPRESSED, bytes: compressed(type, BigInt(zeroes.length), stream) },
      ]),
    );
    const bound = (16 << 20) + 256 * (stream.length + 24);
    t.is(await refusal(at('k')), bound < zeroes.length ? 'corrupt-elf' : null);
  }
});
