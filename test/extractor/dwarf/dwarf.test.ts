import { execFileSync } from 'node:child_process';
import test from 'ava';
import fc from 'fast-check';
import type { StructureMember } from '../../../extractor/contract.ts';
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import type { EngineResult, ExtractRequest } from '../../../extractor/engine.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { gdbEngine } from '../../../extractor/gdb/engine.ts';
import { requestFor } from '../../../extractor/structures.ts';
import { askGdb } from '../fixture.ts';
import { measuringProgram, placesOf, randomStructures } from '../random-structures.ts';
import { FORMS, program } from './compilers.ts';

async function extract(
  path: string,
  structs: ExtractRequest['structs'],
  more: Partial<ExtractRequest> = {},
): Promise<EngineResult> {
  await using file = await openKernelFile(path, { debugRoots: [] });
  return await dwarfEngine.extract(file, { structs, enums: [], required: [], ...more });
}

function member(result: EngineResult, path: string): StructureMember {
  const [name, ...steps] = path.split('.');
  let members = result.structs[name!]!.members;
  let found: StructureMember | undefined;
  for (const step of steps) {
    const flat = (list: readonly StructureMember[]): StructureMember[] =>
      list.flatMap((one) => (one.name === null ? flat(one.members!) : [one]));
    found = flat(members).find((one) => one.name === step);
    members = found?.members ?? [];
  }
  return found!;
}

const SOURCE = `
#include <stddef.h>
#include <stdio.h>
typedef struct { volatile unsigned slock; } spin_t;
typedef spin_t lock_t;
typedef unsigned long mask_t[2];
typedef int (*callback_t)(struct rq *, ...);
enum colour { RED, GREEN = 7, BLUE };
enum temperature { COLD = -5, WARM };
enum wide { TOP = 0x8000000000000000ul, ALL = 0xfffffffffffffffful };
enum { FIRST = 3, SECOND = -4 };
struct later;
union word { int number; char bytes[6]; };
struct pair { char first; long second; };
struct rq {
  lock_t lock;
  unsigned a:3, b:7;
  long long c:40;
  _Bool d:1;
  enum colour e:4;
  union { int u1; struct { short s1, s2; }; };
  struct { int x; union { char y; float z; }; } named[2];
  struct pair in, array[2][3];
  mask_t masks[4];
  callback_t callback;
  int (*table[4])(void);
  int (*rows)[5];
  const char *const *volatile text;
  struct later *later;
  struct rq *self;
  lock_t *where;
  enum temperature temperature;
  enum wide wide;
  __CHAR16_TYPE__ letter;
  __int128 big;
  long double precise;
  union word word;
  struct { } nothing;
  unsigned long none[0];
  struct pair tail[];
};
struct empty { };
struct rq one; struct empty empty; int constants[FIRST + SECOND + 2];
#define AT(path) printf("rq." #path " %zu %zu\\n", offsetof(struct rq, path), sizeof(one.path));
int main(void) {
  AT(lock) AT(u1) AT(s1) AT(s2) AT(named) AT(in) AT(array) AT(masks) AT(callback) AT(table) AT(rows) AT(text)
  AT(later) AT(self) AT(where) AT(temperature) AT(wide) AT(letter) AT(big) AT(precise) AT(word) AT(nothing) AT(none)
  printf("rq.lock.slock %zu 4\\n", offsetof(struct rq, lock.slock));
  printf("rq.named.y %zu 1\\n", offsetof(struct rq, named[0].y));
  printf("rq.tail %zu 0\\n", offsetof(struct rq, tail));
  #define BITS(name) { static struct rq x; x.name = -1; unsigned char *p = (void *)&x; size_t n = 0, at = 0; \\
    for (size_t i = 0; i < sizeof x * 8; i++) if (p[i / 8] >> i % 8 & 1) { if (!n++) at = i; } \\
    printf("rq." #name " bits %zu %zu\\n", at, n); }
  BITS(a) BITS(b) BITS(c) BITS(d) BITS(e)
  return 0;
}
`;

for (const { name, compiler, flags, version } of FORMS) {
  test(`${name}: every member lies where the compiler puts it, typed as gdb says`, async (t) => {
    const path = program(t, { 'main.c': SOURCE }, flags, compiler);
    const result = await extract(path, ['rq', 'empty', 'spin_t', 'missing'], {
      enums: ['colour'],
      constants: ['FIRST', 'SECOND'],
      required: ['rq'],
    });
    t.is(result.dwarfVersion, version);
    const places = execFileSync(path, { encoding: 'utf8' }).trim().split('\n');
    t.true(places.length > 30);
    for (const line of places) {
      const [what, ...numbers] = line.split(' ');
      const { offset, size, bitOffset, bitSize } = member(result, what!);
      if (numbers[0] === 'bits')
        t.deepEqual([offset * 8 + bitOffset!, bitSize], numbers.slice(1).map(Number), line);
      else t.deepEqual([offset, size], numbers.map(Number), line);
    }
    const plain = result.structs.rq!.members.filter(({ name }) => name !== null);
    const answers = askGdb(
      path,
      plain.map((one) => `whatis one.${one.name}`),
    );
    for (const [index, one] of plain.entries()) t.is(`type = ${one.type}`, answers[index]!, one.name!);
    const sizes = askGdb(path, ['output/d sizeof(struct rq)', 'output/d sizeof(spin_t)']);
    t.deepEqual([result.structs.rq!.size, result.structs.spin_t!.size], sizes.map(Number));
    t.deepEqual(result.structs.empty, {
      name: 'empty',
      sourceName: 'empty',
      kind: 'struct',
      size: 0,
      members: [],
    });

    t.like(member(result, 'rq.later'), { kind: 'pointer', target: 'later' });
    t.like(member(result, 'rq.named'), { kind: 'array', dims: [2], element: { kind: 'struct', size: 8 } });
    t.like(member(result, 'rq.masks'), { dims: [4, 2], element: { kind: 'int', size: 8 }, signed: false });
    t.like(member(result, 'rq.temperature'), { kind: 'enum', enum: 'temperature', signed: true });
    t.like(member(result, 'rq.e'), { kind: 'enum', enum: 'colour', signed: false });
    t.like(member(result, 'rq.tail'), { dims: [0], struct: 'pair', element: { kind: 'struct', size: 16 } });
    t.is(result.structs.pair!.size, 16);
    t.is(result.structs.word!.kind, 'union');
    t.deepEqual(result.enums.colour, { size: 4, values: { RED: 0, GREEN: 7, BLUE: 8 } });
    t.deepEqual(result.enums.temperature, { size: 4, values: { COLD: -5, WARM: -4 } });
    t.deepEqual(result.enums.wide, { size: 8, values: { TOP: `${1n << 63n}`, ALL: `${(1n << 64n) - 1n}` } });
    // clang keeps no enumeration without a tag that only constant expressions use.
    if (compiler === 'gcc') t.deepEqual(result.constants, { FIRST: 3, SECOND: -4 });
  });
}

test('random structures lie as the compiler lays them out, in every form of DWARF', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      randomStructures(6),
      fc.constantFrom(...FORMS),
      async (structures, { flags, compiler }) => {
        const path = program(t, { 'main.c': measuringProgram(structures) }, flags, compiler);
        const { structs } = await extract(
          path,
          structures.map(({ name }) => name),
        );
        const lines = execFileSync(path, { encoding: 'utf8' }).trim().split('\n');
        const places = new Map(structures.map(({ name }) => [name, placesOf(structs[name]!.members)]));
        const bitFields = new Set(
          structures.flatMap(({ name, fields }) =>
            fields.filter(({ bitField }) => bitField).map(({ path }) => `${name} ${path}`),
          ),
        );
        // clang writes a bit field as wide as its type as a plain member, even where it starts within a byte: what it
        // says is then not where it puts it.
        const unsaid = (field: string, bits: string) =>
          compiler !== 'gcc' && bitFields.has(field) && ['8', '16', '32', '64'].includes(bits);
        for (const line of lines) {
          const [name, field, first, bits] = line.split(' ');
          if (unsaid(`${name} ${field}`, bits!)) continue;
          if (field === '-') t.is(structs[name!]!.size * 8, Number(bits), name);
          else t.is(places.get(name!)!.get(field!), `${first} ${bits}`, `${name}.${field}`);
        }
      },
    ),
    { numRuns: 16 },
  );
});

test('units that share types, as dwz makes them', async (t) => {
  const header =
    'struct list { struct list *next, *prev; }; typedef struct { int v; struct list l; } holder;' +
    'struct task { holder a; struct list c[4]; union { long q; struct { short r, s; }; }; };' +
    'struct rq { struct task *curr, idle; };';
  const sources = ['a', 'b', 'c'].map((name) => [`${name}.c`, `${header} struct rq ${name};`]);
  const path = program(t, { ...Object.fromEntries(sources), 'main.c': 'int main(void) { return 0; }' });
  const shared = `${path}.dwz`;
  execFileSync('dwz', ['-o', shared, path]);
  t.regex(
    execFileSync('readelf', ['--debug-dump=info', shared], { encoding: 'utf8' }),
    /DW_TAG_partial_unit/,
  );
  for (const structs of [['rq'], 'all'] as const) {
    t.deepEqual(await extract(shared, structs), await extract(path, structs));
  }
  await using file = await openKernelFile(shared, { debugRoots: [] });
  const request = { structs: ['rq'], enums: [], required: ['rq'], constants: [] };
  t.deepEqual(await gdbEngine.extract(file, request), await dwarfEngine.extract(file, request));
});

test('all structures: as many as the compiler made, different ones of one name beside each other', async (t) => {
  const path = program(t, {
    'a.c': 'struct own { int a; } a; struct same { long x; } s; enum e { A } e; struct x { char c; } x;',
    'b.c': 'struct own { int a, b; } b; struct same { long x; } r; struct x *p; int main(void) { return 0; }',
  });
  const { structs, enums } = await extract(path, 'all');
  t.deepEqual(Object.keys(structs).sort(), ['own', 'own___2', 'same', 'x']);
  t.deepEqual([structs.own!.size, structs.own___2!.size], [4, 8]);
  t.deepEqual(enums, { e: { size: 4, values: { A: 0 } } });
});

const CORE = 'struct rq { int a; struct later *l; } rq; struct list { struct list *next; } l;';
const OTHER = 'struct rq { long a; } r; struct later { char c[3]; } later; int main(void) { return 0; }';

test("the scheduler's unit decides, and the others are read for what it lacks", async (t) => {
  for (const core of ['kernel/sched/core.c', 'kernel/sched.c']) {
    const path = program(t, { 'drivers/first.c': OTHER, [core]: CORE });
    const { structs } = await extract(path, ['rq', 'list', 'later'], { required: ['rq'] });
    t.is(structs.rq!.size, 16);
    t.deepEqual(Object.keys(structs).sort(), ['list', 'rq']);
    t.is((await extract(path, ['later'], { required: ['later'] })).structs.later!.size, 3);
  }
});

test("a CPU's own structures are found in the files of their variables, which clang's scheduler does not describe", async (t) => {
  const sources = {
    'drivers/first.c': OTHER,
    'kernel/sched/core.c': `${CORE} int schedule(void) { return 0; }`,
    // Of a name like the next one's, and before it in the kernel too; it only uses the variable.
    'arch/x86/kernel/process_64.c':
      'extern struct tss_struct cpu_tss_rw; void *used(void) { return &cpu_tss_rw; }',
    'arch/x86/kernel/process.c':
      'struct tss_struct { char c[3]; } cpu_tss_rw; int __switch_to_xtra(void) { return 0; }',
    'arch/x86/kernel/cpu/common.c':
      'struct pcpu_hot { long a; int preempt_count; } pcpu_hot; int cpu_init(void) { return 0; }',
  };
  // clang writes no table of addresses (.debug_aranges).
  for (const compiler of ['gcc', 'clang-14']) {
    const path = program(t, sources, ['-g'], compiler);
    const request = { structs: ['rq', 'tss_struct', 'pcpu_hot'], required: ['rq'], enums: [] };
    const { structs } = await extract(path, request.structs, request);
    t.deepEqual([structs.tss_struct?.size, structs.pcpu_hot?.size], [3, 16], compiler);
    await using file = await openKernelFile(path, { debugRoots: [] });
    t.deepEqual((await gdbEngine.extract(file, request)).structs, structs, compiler);
  }
});

test('different definitions are refused with both places, equal ones are not', async (t) => {
  const conflict = program(t, { 'drivers/first.c': OTHER, 'kernel/fork.c': CORE });
  const error = await t.throwsAsync(extract(conflict, ['rq']), { instanceOf: ExtractError });
  t.like(error, {
    code: 'struct-conflict',
    details: { name: 'rq', first: 'drivers/first.c', second: 'kernel/fork.c' },
  });
  const thorough = program(t, { 'drivers/first.c': OTHER, 'kernel/sched/core.c': CORE });
  await t.throwsAsync(extract(thorough, ['rq'], { thorough: true }), { code: 'struct-conflict' });
  // Equal but for what lies behind a pointer, and for a member's type that is declared in one only.
  const equal = program(t, {
    'a.c': 'struct later { int x; }; struct rq { struct later *l; int a[2]; } rq; struct later later;',
    'b.c': 'struct later; struct rq { struct later *l; int a[2]; } r; int main(void) { return 0; }',
  });
  t.is((await extract(equal, ['rq'], { thorough: true })).structs.rq!.size, 16);
  for (const different of ['unsigned', 'enum e { A }', 'struct { int y; }']) {
    const path = program(t, {
      'a.c': 'struct rq { struct { int x; } in; } rq;',
      'b.c': `struct rq { ${different} in; } r; int main(void) { return 0; }`,
    });
    await t.throwsAsync(extract(path, ['rq']), { code: 'struct-conflict' }, different);
  }
});

/** As the command asks. */
async function named(path: string, ...names: string[]): Promise<EngineResult> {
  await using file = await openKernelFile(path, { debugRoots: [] });
  return await dwarfEngine.extract(file, requestFor({ kind: 'named', names, scheduler: false }));
}

test('of several structures of one name one is chosen by its source file; the refusal lists the files', async (t) => {
  const path = program(t, {
    'a.c': 'struct own { int a; } a; struct runqueue { char c; } q;',
    'x/a.c': 'struct own { int a, b; } b;',
    'x/same.c': 'struct own { int a; } d;',
    'x/c.c': 'struct own { int a, b, c; } c; struct rq { long l; } r; int main(void) { return 0; }',
  });
  const error = await t.throwsAsync(named(path, 'own'), { instanceOf: ExtractError });
  t.like(error, { code: 'struct-conflict', details: { files: ['a.c', 'x/a.c', 'x/c.c'] } });
  const advised = [...error!.message.matchAll(/--struct (\S+)/g)].map(([, choice]) => choice!);
  const sizes = [];
  for (const choice of advised) sizes.push((await named(path, choice)).structs.own!.size);
  t.deepEqual(sizes, [4, 8, 12]);
  // A definition that is equal to another file's is there all the same; the end of a path is enough.
  t.is((await named(path, 'own@same.c')).structs.own!.size, 4);
  t.is((await named(path, 'own@c.c', 'rq@x/c.c')).structs.rq!.size, 8);
  t.is((await named(path, 'rq@a.c')).structs.rq!.sourceName, 'runqueue');
  await t.throwsAsync(named(path, 'own@none.c'), {
    code: 'struct-not-found',
    message: /no source file none\.c .* defines own; these do: a\.c, x\/a\.c, x\/c\.c$/,
  });
  // What two structures embed in two ways is not chosen by the name of either.
  const embedded = program(t, {
    'a.c': 'struct in { int a; }; struct one { struct in i; } a;',
    'b.c': 'struct in { long a; }; struct two { struct in i; } b; int main(void) { return 0; }',
  });
  const inner = await t.throwsAsync(named(embedded, 'one', 'two'), { instanceOf: ExtractError });
  t.is(inner!.code, 'struct-conflict');
  t.notRegex(inner!.message, /--struct/);
});

test('a structure that is not there is named, with the nearest that is', async (t) => {
  const path = program(t, { 'kernel/sched/core.c': `${CORE} int main(void) { return 0; }` });
  const error = await t.throwsAsync(extract(path, ['lisst'], { required: ['lisst'] }), {
    instanceOf: ExtractError,
  });
  t.like(error, { code: 'struct-not-found' });
  t.regex(error!.message, /lisst \(nearest: list/);
});

test('no debug information', async (t) => {
  const path = program(t, { 'main.c': 'int main(void) { return 0; }' }, ['-g0']);
  await using file = await openKernelFile(path, { debugRoots: [] });
  t.regex((await dwarfEngine.unavailable(file, { structs: ['rq'], enums: [], required: [] }))!, /no DWARF/);
  await t.throwsAsync(extract(path, ['rq']), { code: 'no-debug-information' });
});

test('an aborted request stops between units', async (t) => {
  const path = program(t, { 'main.c': SOURCE });
  await using file = await openKernelFile(path, { debugRoots: [] });
  const controller = new AbortController();
  controller.abort(new ExtractError('interrupted', 'interrupted'));
  const slow = { structs: 'all', enums: [], required: [], signal: controller.signal } as const;
  await t.throwsAsync(dwarfEngine.extract(file, slow), { code: 'interrupted' });
});
