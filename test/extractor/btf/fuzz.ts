import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { extractBtf } from '../../../extractor/btf/engine.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { type FuzzOptions, type FuzzReport, fuzzMutants, type Random } from '../../fuzz/mutants.ts';
import { BtfBuilder } from '../build-btf.ts';

const SOURCE = `
struct list { struct list *next; }; enum e { A = -1, B }; typedef struct list list_t;
struct s { list_t l; enum e e; unsigned f:3, g:20; int (*fn)(struct s *, ...); union { long a; char b[7]; };
  const char *const names[4]; struct { int x; struct { short y; } z[3]; } deep[2]; volatile long v; _Bool t; };
struct outer { struct s in[3]; struct s *to; enum e last; char tail[]; };
struct outer it;`;

const HEADER_WORDS = 6;
const BORDERS = [
  0, 1, 2, 0xff, 0xffff, 0x1_0000, 0xff_ffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff,
];

/**
 * Reads all structures of mutated BTF. Structure-aware: whole words become border values, ids of other types,
 * other kinds, counts and flags; ranges of words are copied, moved and cut; strings change byte by byte.
 */
export async function fuzzBtf(options: FuzzOptions): Promise<FuzzReport> {
  const bases = await seeds();
  return fuzzMutants(
    options,
    (random) => mutate(bases[random(bases.length)]!, random),
    async (input) => {
      try {
        extractBtf(input, 'fuzz.btf', { structs: 'all', enums: [], required: [], constants: ['A'] });
        return undefined;
      } catch (error) {
        if (error instanceof ExtractError) return error.code;
        throw error;
      }
    },
  );
}

function mutate(base: Buffer, random: Random): Buffer {
  let bytes = Buffer.from(base);
  for (let count = 1 + random(4); count > 0; count--) {
    const words = Math.floor(bytes.length / 4);
    if (words <= HEADER_WORDS) break;
    // The header is a small part of the format: it gets a small part of the mutations.
    const word = random(16) === 0 ? random(words) : HEADER_WORDS + random(words - HEADER_WORDS);
    const at = word * 4;
    switch (random(7)) {
      case 0:
        bytes.writeUInt32LE(BORDERS[random(BORDERS.length)]!, at);
        break;
      case 1:
        bytes.writeUInt32LE(random(24), at);
        break;
      case 2: {
        const info = ((random(2) << 31) | (random(21) << 24) | random(6)) >>> 0;
        bytes.writeUInt32LE(info, at);
        break;
      }
      case 3:
        bytes[at + random(4)]! ^= 1 << random(8);
        break;
      case 4:
        bytes.copy(bytes, at, random(words) * 4, random(words) * 4);
        break;
      case 5:
        bytes.writeUInt32LE(bytes.readUInt32LE(random(words) * 4), at);
        break;
      default:
        if (random(8) === 0) bytes = bytes.subarray(0, random(bytes.length));
        else bytes[random(bytes.length)] = random(256);
    }
  }
  return bytes;
}

export async function seeds(): Promise<readonly Buffer[]> {
  return [await compiled(), handmade()];
}

/** BTF as pahole makes it. */
async function compiled(): Promise<Buffer> {
  const folder = mkdtempSync(join(tmpdir(), 'domsched-fuzz-'));
  try {
    writeFileSync(join(folder, 'input.c'), SOURCE);
    const output = join(folder, 'input.o');
    execFileSync('gcc', ['-g', '-c', join(folder, 'input.c'), '-o', output]);
    execFileSync('pahole', ['--btf_encode_force', '-J', output]);
    await using file = await openKernelFile(output);
    return Buffer.from(file.section('.BTF')!.read());
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** The kinds that pahole here does not write. */
function handmade(): Buffer {
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  const float = builder.type(16, { name: 'double', third: 8 });
  const wide = builder.type(19, {
    name: 'wide',
    vlen: 2,
    third: 8,
    trailer: [builder.string('A'), 1, 0, builder.string('B'), 2, 1],
  });
  const tagged = builder.pointer(builder.type(18, { name: 'rcu', third: int }));
  builder.record('struct', 'inner', 24, [
    ['f', float, 0],
    ['w', wide, 64],
    ['t', tagged, 128],
  ]);
  builder.record('struct', 'outer', 32, [
    ['in', 6, 0],
    ['bits', int, 200, 7],
  ]);
  builder.type(7, { name: 'later' });
  const variable = builder.type(14, { name: 'runqueues', third: int, trailer: [1] });
  builder.type(15, { name: '.data..percpu', vlen: 1, third: 64, trailer: [variable, 8, 4] });
  builder.type(17, { name: 'note', third: 5, trailer: [0] });
  return builder.bytes();
}

if (process.argv[1] && import.meta.filename === process.argv[1]) {
  const report = await fuzzBtf({
    runs: Number(process.argv[2] ?? 20_000),
    seed: Number(process.argv[3] ?? 1),
  });
  process.stdout.write(`${JSON.stringify(report)}\n`);
}
