import fc from 'fast-check';
import type { StructureMember } from '../../extractor/contract.ts';

/** A random C structure: its definition and, for each member that can be named, the expression after `x.`. */
export interface RandomStructure {
  name: string;
  definition: string;
  fields: { path: string; bitField: boolean }[];
}

interface RandomMember {
  text: (name: string) => string;
  /** Members reached through this one, as suffixes of its name; '' for the member itself. */
  inner: { suffix: string; bitField: boolean }[];
  anonymous: boolean;
}

const INTEGERS = [
  ...['char', 'signed char', 'unsigned char', 'short', 'unsigned short', 'int', 'unsigned int', 'long'],
  ...['unsigned long', 'long long', 'unsigned long long', 'typedef_t'],
];

const itself = [{ suffix: '', bitField: false }];

const scalar = fc
  .constantFrom(
    ...INTEGERS,
    ...[
      '_Bool',
      'float',
      'double',
      'void *',
      'struct undefined *',
      'enum colour',
      '__int128',
      'spin_t',
      'const int',
    ],
  )
  .map((type): RandomMember => ({ text: (name) => `${type} ${name};`, inner: itself, anonymous: false }));

const functionPointer = fc.constant<RandomMember>({
  text: (name) => `int (*${name})(void *, unsigned long);`,
  inner: itself,
  anonymous: false,
});

const array = fc
  .tuple(
    fc.constantFrom(...INTEGERS, 'void *', 'struct pair', 'vector_t', 'enum colour'),
    fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 3 }),
  )
  .map(
    ([type, dims]): RandomMember => ({
      text: (name) => `${type} ${name}${dims.map((dim) => `[${dim}]`).join('')};`,
      inner: itself,
      anonymous: false,
    }),
  );

const embedded = fc
  .constantFrom('struct pair', 'union either')
  .map((type): RandomMember => ({ text: (name) => `${type} ${name};`, inner: itself, anonymous: false }));

const WIDTHS: Record<string, number> = {
  'unsigned char': 8,
  short: 16,
  'unsigned int': 32,
  int: 32,
  'unsigned long': 64,
};

const bitField = fc
  .constantFrom(...Object.keys(WIDTHS))
  .chain((type) => fc.tuple(fc.constant(type), fc.integer({ min: 1, max: WIDTHS[type]! })))
  .map(
    ([type, width]): RandomMember => ({
      text: (name) => `${type} ${name}:${width};`,
      inner: [{ suffix: '', bitField: true }],
      anonymous: false,
    }),
  );

const padding = fc
  .constantFrom('int :0;', 'unsigned :3;')
  .map((text): RandomMember => ({ text: () => text, inner: [], anonymous: false }));

const { part } = fc.letrec<{ part: RandomMember; nested: RandomMember }>((tie) => ({
  part: fc.oneof(
    { maxDepth: 3, depthSize: 'medium' },
    { arbitrary: scalar, weight: 4 },
    { arbitrary: functionPointer, weight: 1 },
    { arbitrary: array, weight: 2 },
    { arbitrary: embedded, weight: 1 },
    { arbitrary: bitField, weight: 3 },
    { arbitrary: padding, weight: 1 },
    { arbitrary: tie('nested'), weight: 3 },
  ),
  nested: fc
    .tuple(
      fc.constantFrom('struct', 'union'),
      fc.boolean(),
      fc.array(tie('part'), { minLength: 1, maxLength: 5 }),
      fc.boolean(),
    )
    .map(([tag, anonymous, parts, packed]): RandomMember => {
      const attribute = packed ? ' __attribute__((packed))' : '';
      return {
        text: (name) => {
          const body = parts.map((inner, index) => inner.text(`${name}_${index}`)).join(' ');
          return `${tag} {${body}}${attribute}${anonymous ? '' : ` ${name}`};`;
        },
        inner: [
          ...(anonymous ? [] : itself),
          ...parts.flatMap((inner, index) =>
            inner.inner.map(({ suffix, bitField }) => ({
              // A nested member is reached through the name of each structure that has one.
              suffix: `${anonymous ? '' : '.@'}_${index}${suffix}`,
              bitField,
            })),
          ),
        ],
        anonymous,
      };
    }),
}));

/** What the random structures use. */
export const PREAMBLE = `
struct pair { short first; long second; };
union either { int number; char bytes[6]; };
enum colour { RED = -1, GREEN, BLUE };
typedef unsigned int typedef_t;
typedef struct { unsigned int slock; } spin_t;
typedef long vector_t[3];
`;

/** @param count structures in one draw */
export function randomStructures(count: number): fc.Arbitrary<RandomStructure[]> {
  const one = fc.tuple(
    fc.array(part, { minLength: 1, maxLength: 12 }),
    fc.constantFrom('', ' __attribute__((packed))', ' __attribute__((aligned(64)))'),
    fc.constantFrom('', 'char tail[];', 'struct { int a; char b; } tail[];'),
  );
  return fc.array(one, { minLength: count, maxLength: count }).map((draws) =>
    draws.map(([parts, attribute, tail], index) => {
      const name = `random_${index}`;
      const body = parts.map((it, position) => it.text(`m${position}`)).join('\n  ');
      // A leading member, as a structure of padding and a flexible array alone is no C.
      const definition = `struct ${name} {\n  int head;\n  ${body}\n  ${tail}\n}${attribute};`;
      const fields = parts.flatMap((it, position) =>
        it.inner.map(({ suffix, bitField }) => ({ path: expand(`m${position}`, suffix), bitField })),
      );
      return { name, definition, fields: [{ path: 'head', bitField: false }, ...fields] };
    }),
  );
}

/** `@` stands for the member's own name once more: inner names repeat their outer one's. */
function expand(name: string, suffix: string): string {
  let path = '';
  let current = name;
  for (const step of suffix.match(/\.@_\d+|_\d+/g) ?? []) {
    if (step.startsWith('.@')) {
      path += `${current}.`;
      current += step.slice(2);
    } else current += step;
  }
  return path + current;
}

/**
 * A C program that prints, for every field, `structure path byte bits-offset size-in-bits` as the compiler placed
 * it: `offsetof` and `sizeof`, and for bit fields the bits that change when the field is set.
 */
export function measuringProgram(structures: readonly RandomStructure[]): string {
  const lines = structures.flatMap(({ name, fields }) => [
    `printf("${name} - 0 %zu\\n", sizeof(struct ${name}) * 8);`,
    ...fields.map(({ path, bitField }) =>
      bitField
        ? `{ static struct ${name} x; x.${path} = ~0; measure("${name}", "${path}", &x, sizeof x); x.${path} = 0; }`
        : `printf("${name} ${path} %zu %zu\\n", offsetof(struct ${name}, ${path}) * 8, sizeof(((struct ${name} *)0)->${path}) * 8);`,
    ),
  ]);
  return `
#include <stddef.h>
#include <stdio.h>
${PREAMBLE}
${structures.map(({ definition }) => definition).join('\n')}
static void measure(const char *name, const char *path, const void *data, size_t size) {
  const unsigned char *bytes = data;
  size_t first = 0, count = 0;
  for (size_t bit = 0; bit < size * 8; bit++)
    if (bytes[bit / 8] >> bit % 8 & 1) { if (!count) first = bit; count++; }
  printf("%s %s %zu %zu\\n", name, path, first, count);
}
${structures.map(({ name }) => `struct ${name} instance_${name};`).join('\n')}
int main(void) {
  ${lines.join('\n  ')}
  return 0;
}
`;
}

/** Where each nameable member lies, in the program's words: `path first-bit bits`. */
export function placesOf(members: readonly StructureMember[], prefix = ''): Map<string, string> {
  const places = new Map<string, string>();
  for (const member of members) {
    const path = `${prefix}${member.name ?? ''}`;
    const bits = member.bitSize ?? member.size * 8;
    if (member.name !== null) places.set(path, `${member.offset * 8 + (member.bitOffset ?? 0)} ${bits}`);
    if (!member.members || member.dims) continue;
    const inner = placesOf(member.members, member.name === null ? prefix : `${path}.`);
    for (const [name, place] of inner) places.set(name, place);
  }
  return places;
}
