import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';
import type { KernelLayout, StructureMember } from '../../extractor/contract.ts';

/** Members of the C structure, as declared: name, declaration, and what the compiler cannot be asked in plain C. */
const MEMBERS: readonly [name: string, declaration: string, facts: Partial<StructureMember>][] = [
  ['i8', 'signed char i8', { kind: 'int', signed: true }],
  ['u8', 'unsigned char u8', { kind: 'int', signed: false }],
  ['i16', 'short i16', { kind: 'int', signed: true }],
  ['u16', 'unsigned short u16', { kind: 'int', signed: false }],
  ['flag', '_Bool flag', { kind: 'bool' }],
  ['i32', 'int i32', { kind: 'int', signed: true }],
  ['u32', 'unsigned int u32', { kind: 'int', signed: false }],
  ['i64', 'long i64', { kind: 'int', signed: true }],
  ['u64', 'unsigned long u64', { kind: 'int', signed: false }],
  ['b1', 'unsigned b1:1', { kind: 'int', signed: false }],
  ['b5', 'unsigned b5:5', { kind: 'int', signed: false }],
  ['s3', 'int s3:3', { kind: 'int', signed: true }],
  ['b17', 'unsigned b17:17', { kind: 'int', signed: false }],
  ['s9', 'int s9:9', { kind: 'int', signed: true }],
  ['b32', 'unsigned b32:32', { kind: 'int', signed: false }],
  ['s32', 'int s32:32', { kind: 'int', signed: true }],
  ['bb', '_Bool bb:1', { kind: 'bool' }],
  ['l40', 'unsigned long l40:40', { kind: 'int', signed: false }],
  ['sl20', 'long sl20:20', { kind: 'int', signed: true }],
  ['l60', 'unsigned long l60:60', { kind: 'int', signed: false }],
  ['sl61', 'long sl61:61', { kind: 'int', signed: true }],
  ['p', 'void *p', { kind: 'pointer' }],
  ['f', 'float f', { kind: 'float' }],
  ['d', 'double d', { kind: 'float' }],
  ['e', 'enum colour e', { kind: 'enum', signed: false }],
  ['c', 'char c', { kind: 'int', signed: true }],
];

const SOURCE = `
#include <stdio.h>
#include <stddef.h>
#include <string.h>
enum colour { RED, BLUE = 0xfffffff0 };
struct all { ${MEMBERS.map(([, declaration]) => `${declaration};`).join(' ')} short grid[3][2]; unsigned long words[4]; };
static void bits(const char *name, const unsigned char *p) {
  int first = -1, count = 0;
  for (int i = 0; i < (int)sizeof(struct all) * 8; i++)
    if (p[i / 8] >> (i % 8) & 1) { if (first < 0) first = i; count++; }
  printf("bits %s %d %d\\n", name, first, count);
}
int main(int argc, char **argv) {
  struct all s;
  printf("size all %zu\\n", sizeof s);
  printf("array grid %zu %zu\\narray words %zu %zu\\n", offsetof(struct all, grid), sizeof s.grid, offsetof(struct all, words), sizeof s.words);
${MEMBERS.map(([name, , { kind }]) =>
  kind === 'float'
    ? `  printf("place ${name} %zu %zu\\n", offsetof(struct all, ${name}), sizeof s.${name});`
    : kind === 'pointer'
      ? `  memset(&s, 0, sizeof s); s.${name} = (void *)-1L; bits("${name}", (void *)&s);`
      : `  memset(&s, 0, sizeof s); s.${name} = -1; bits("${name}", (void *)&s);`,
).join('\n')}
  FILE *image = fopen(argv[1], "rb");
  while (image && fread(&s, sizeof s, 1, image) == 1) {
${MEMBERS.map(([name, , { kind, signed }]) =>
  kind === 'float'
    ? `    printf("value ${name} %a\\n", (double)s.${name});`
    : kind === 'pointer'
      ? `    printf("value ${name} %lu\\n", (unsigned long)s.${name});`
      : `    printf("value ${name} %${signed ? 'ld' : 'lu'}\\n", (${signed ? '' : 'unsigned '}long)s.${name});`,
).join('\n')}
    for (int i = 0; i < 6; i++) printf("value grid[%d] %d\\n", i, (&s.grid[0][0])[i]);
    for (int i = 0; i < 4; i++) printf("value words[%d] %lu\\n", i, s.words[i]);
    printf("end\\n");
  }
  return 0;
}
`;

export interface CProgram {
  layout: KernelLayout;
  /** Bytes of the structure. */
  size: number;
  /** What the compiled C reads from each structure in an image: printed values by name. */
  values(images: Uint8Array): Promise<Map<string, string>[]>;
}

/** A structure of every kind of scalar, laid out and read by what gcc makes of it. */
export async function compileC(folder: string): Promise<CProgram> {
  const program = join(folder, 'all');
  const image = join(folder, 'image');
  await writeFile(`${program}.c`, SOURCE);
  await writeFile(image, '');
  await execa('gcc', ['-O1', '-w', '-o', program, `${program}.c`]);
  const run = async () => (await execa(program, [image])).stdout.split('\n').map((line) => line.split(' '));
  const facts = await run();
  const fact = (what: string, name: string) =>
    facts
      .find((line) => line[0] === what && line[1] === name)!
      .slice(2)
      .map(Number);
  const size = fact('size', 'all')[0]!;
  const members = MEMBERS.map(([name, declaration, known]): StructureMember => {
    const type = declaration.replace(/\b\w+(:\d+)?$/, '').trim();
    if (known.kind === 'float') {
      const [offset, bytes] = fact('place', name);
      return { name, offset: offset!, size: bytes!, type, ...known } as StructureMember;
    }
    const [first, count] = fact('bits', name) as [number, number];
    if (!declaration.includes(':')) {
      // A true _Bool has one bit set of its one byte.
      const bytes = known.kind === 'bool' ? 1 : count / 8;
      return { name, offset: first / 8, size: bytes, type, ...known } as StructureMember;
    }
    const unit = /long/.test(type) ? 8 : /_Bool/.test(type) ? 1 : 4;
    const offset = Math.floor(first / (unit * 8)) * unit;
    return {
      name,
      offset,
      size: unit,
      type,
      ...known,
      bitOffset: first - offset * 8,
      bitSize: count,
    } as StructureMember;
  });
  const array = (
    name: string,
    type: string,
    dims: number[],
    element: number,
    signed: boolean,
  ): StructureMember => {
    const [offset, bytes] = fact('array', name) as [number, number];
    return {
      name,
      offset,
      size: bytes,
      type,
      kind: 'array',
      dims,
      element: { kind: 'int', size: element },
      signed,
    };
  };
  members.push(
    array('grid', 'short [3][2]', [3, 2], 2, true),
    array('words', 'unsigned long [4]', [4], 8, false),
  );
  return {
    size,
    layout: {
      format: 'domsched-layout/1',
      kernel: { release: '1.0-gcc', banner: 'Linux version 1.0-gcc (test)', buildId: null, arch: 'x86_64' },
      source: { file: 'all', sha256: '0'.repeat(64), engine: 'gdb', dwarfVersion: null },
      producer: { name: 'domsched', version: '0.0.0' },
      structs: { all: { name: 'all', sourceName: 'all', kind: 'struct', size, members } },
      enums: {},
      constants: {},
      symbols: {},
      percpu: [],
    },
    async values(images) {
      await writeFile(image, images);
      const found: Map<string, string>[] = [new Map()];
      for (const [what, name, value] of await run()) {
        if (what === 'end') found.push(new Map());
        else if (what === 'value') found.at(-1)!.set(name!, value!);
      }
      return found.slice(0, -1);
    },
  };
}
