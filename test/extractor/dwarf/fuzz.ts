import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { type FuzzOptions, type FuzzReport, fuzzMutants, type Random } from '../../fuzz/mutants.ts';
import { FORMS } from './compilers.ts';
import { memoryFile } from './memory-file.ts';

const SOURCE = `
typedef struct { volatile unsigned slock; } spinlock_t;
enum state { RUNNING, SLEEPING = 5 };
struct list_head { struct list_head *next, *prev; };
struct prio_array { int active; unsigned long bitmap[3]; struct list_head queue[140]; };
struct runqueue {
  spinlock_t lock; unsigned a:3, b:29; enum state state;
  union { long l; struct { short s, t; }; };
  void (*fn)(const struct runqueue *, ...);
  struct prio_array arrays[2]; char tail[];
};
struct runqueue runqueue;
int main(void) { return 0; }
`;
export const SECTIONS = [
  '.debug_info',
  '.debug_types',
  '.debug_abbrev',
  '.debug_str',
  '.debug_line_str',
  '.debug_str_offsets',
];
/** Where most of the structure is. */
const TARGETS = [
  '.debug_info',
  '.debug_info',
  '.debug_info',
  '.debug_abbrev',
  '.debug_abbrev',
  '.debug_types',
  '.debug_str_offsets',
];
const BORDERS = [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff];
/** Tags and attribute forms that lead libdwarf down different paths. */
const CODES = [
  0x01, 0x04, 0x08, 0x0b, 0x0d, 0x0e, 0x10, 0x13, 0x16, 0x17, 0x18, 0x1a, 0x20, 0x21, 0x24, 0x28, 0x3a, 0x3f,
];

type Sections = Readonly<Record<string, Uint8Array>>;

/**
 * Extracts from mutated DWARF of every form. Structure-aware: values at the borders and neighbours' values go into
 * unit headers, entries and abbreviations, tags and forms are exchanged, pieces are copied over others or cut off.
 */
export async function fuzzDwarf(options: FuzzOptions): Promise<FuzzReport> {
  const seeds = await seedSections();
  return fuzzMutants(
    options,
    (random) => mutate(seeds[random(seeds.length)]!, random),
    async (mutant, random) => {
      const structs = random(3) === 0 ? ('all' as const) : ['runqueue', 'prio_array', 'spinlock_t'];
      try {
        await dwarfEngine.extract(memoryFile(mutant), { structs, enums: ['state'], required: [] });
        return undefined;
      } catch (error) {
        if (error instanceof ExtractError) return error.code;
        throw error;
      }
    },
  );
}

export async function seedSections(): Promise<Sections[]> {
  const folder = mkdtempSync(join(tmpdir(), 'domsched-fuzz-'));
  try {
    const seeds: Sections[] = [];
    for (const { compiler, flags } of FORMS) {
      writeFileSync(join(folder, 'seed.c'), SOURCE);
      const path = join(folder, 'seed');
      execFileSync(compiler, ['-w', ...flags, join(folder, 'seed.c'), '-o', path], { stdio: 'pipe' });
      await using file = await openKernelFile(path, { debugRoots: [] });
      const present = SECTIONS.map((name) => [name, file.section(name)] as const).filter(
        ([, section]) => section?.size,
      );
      seeds.push(Object.fromEntries(present.map(([name, section]) => [name, section!.read()])));
    }
    return seeds;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function mutate(seed: Sections, random: Random): Sections {
  const mutant: Record<string, Uint8Array> = Object.fromEntries(
    Object.entries(seed).map(([name, bytes]) => [name, Uint8Array.from(bytes)]),
  );
  for (let count = random(5); count >= 0; count--) {
    const name = TARGETS[random(TARGETS.length)]!;
    const bytes = mutant[name];
    if (!bytes || bytes.length < 8) continue;
    const view = new DataView(bytes.buffer);
    const at = random(3) === 0 ? random(24) % (bytes.length - 4) : random(bytes.length - 4);
    switch (random(8)) {
      case 0:
        view.setUint32(at, BORDERS[random(BORDERS.length)]!, true);
        break;
      case 1:
        view.setUint32(at, random(bytes.length + 8), true);
        break;
      case 2:
        bytes[at] = CODES[random(CODES.length)]!;
        break;
      case 3:
        bytes[at] = bytes[at]! + random(5) - 2;
        break;
      case 4:
        bytes[at] = bytes[at]! ^ (1 << random(8));
        break;
      case 5: {
        const length = Math.min(random(32), bytes.length - at);
        bytes.copyWithin(random(bytes.length - length + 1), at, at + length);
        break;
      }
      case 6:
        bytes.fill(random(2) ? 0xff : 0x80, at, at + random(12));
        break;
      default:
        if (random(4) === 0) mutant[name] = bytes.slice(0, random(bytes.length));
        else bytes[at] = random(256);
    }
  }
  return mutant;
}

if (process.argv[1] && import.meta.filename === process.argv[1]) {
  const runs = Number(process.argv[2] ?? 2000);
  const report = await fuzzDwarf({ runs, seed: Number(process.argv[3] ?? 1) });
  process.stdout.write(`${JSON.stringify(report)}\n`);
}
