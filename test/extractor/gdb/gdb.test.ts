import { readdirSync } from 'node:fs';
import test from 'ava';
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import type { ExtractRequest } from '../../../extractor/engine.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { parseDeclaration } from '../../../extractor/gdb/declaration.ts';
import { gdbEngine } from '../../../extractor/gdb/engine.ts';
import { PtypeError, parsePtype, placeFields } from '../../../extractor/gdb/ptype.ts';
import { requestFor } from '../../../extractor/structures.ts';
import { realKernels } from '../../real-kernels.ts';
import { FORMS, program } from '../dwarf/compilers.ts';
import { scratchFolder } from '../fixture.ts';
import { PREAMBLE } from '../random-structures.ts';

const SOURCE = `${PREAMBLE}
enum { FIRST = 3 };
struct later;
typedef struct later later_t;
typedef int (*callback_t)(struct rq *, ...);
struct rq {
  spin_t lock, *where;
  unsigned a:3, b:7;
  _Bool on:1;
  union { int u1; struct { short s1, s2; }; unsigned low:5; };
  struct { int x; union { char y; float z; }; struct { long deep; } deeper; } named[2];
  struct pair in, array[2][3];
  struct { union { struct { int p; } q; int r; }; } again[1];
  enum colour colour; enum { HOT, COLD = -2 } unnamed;
  vector_t vectors[4], empty[0];
  callback_t callback; int (*table[4])(void); int (*rows)[5]; void (*(*nested)(int))(char);
  const char *const *volatile text; const char *const words[2];
  later_t *later; struct rq *self; void *anything;
  char name[16]; __int128 big; long double precise; unsigned long long wide;
  union either either; struct { } nothing; struct pair tail[];
} __attribute__((aligned(64)));
struct packed { char a; int b; short c:5; int d:20; } __attribute__((packed));
struct rq rq; struct packed packed; int constant = FIRST;
int main(void) { return 0; }
`;
const REQUEST: ExtractRequest = {
  structs: ['rq', 'packed', 'pair', 'spin_t', 'missing'],
  enums: ['colour', 'missing'],
  constants: ['FIRST', 'MISSING'],
  required: ['rq'],
};

async function both(path: string, request: ExtractRequest) {
  await using file = await openKernelFile(path, { debugRoots: [] });
  return { dwarf: await dwarfEngine.extract(file, request), gdb: await gdbEngine.extract(file, request) };
}

for (const { name, compiler, flags } of [
  ...FORMS,
  { name: 'gcc, unsigned char', compiler: 'gcc', flags: ['-g', '-funsigned-char'] },
]) {
  test(`${name}: gdb and libdwarf see the same`, async (t) => {
    const path = program(t, { 'main.c': SOURCE }, flags, compiler);
    const { dwarf, gdb } = await both(path, {
      ...REQUEST,
      constants: compiler === 'gcc' ? REQUEST.constants! : [],
    });
    t.deepEqual(gdb, dwarf);
    t.true(Object.keys(gdb.structs).length >= 5);
    t.deepEqual(gdb.enums.colour, { size: 4, values: { RED: -1, GREEN: 0, BLUE: 1 } });
  });
}

for (const { release, vmlinux } of realKernels().filter(({ release }) => release.includes('cloud'))) {
  test.serial(`${release}: gdb and libdwarf see the same scheduler`, async (t) => {
    const { dwarf, gdb } = await both(vmlinux, requestFor({ kind: 'scheduler' }));
    t.deepEqual(gdb, dwarf);
    t.true(Object.keys(gdb.structs).length > 100);
  });
}

test.serial(
  'what is missing is named; what gdb cannot list is refused; nothing is left behind',
  async (t) => {
    const { TMPDIR } = process.env;
    const temporary = scratchFolder(t);
    const path = program(t, { 'main.c': SOURCE });
    await using file = await openKernelFile(path, { debugRoots: [] });
    process.env.TMPDIR = temporary;
    t.teardown(() => {
      if (TMPDIR === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = TMPDIR;
    });
    await gdbEngine.extract(file, REQUEST);
    const missing = gdbEngine.extract(file, { structs: ['rqq'], enums: [], required: ['rqq'] });
    await t.throwsAsync(missing, {
      instanceOf: ExtractError,
      code: 'struct-not-found',
      message: /nearest: rq/,
    });
    await t.throwsAsync(gdbEngine.extract(file, { structs: 'all', enums: [], required: [] }), {
      code: 'engine-unavailable',
      message: /one structure at a time/,
    });
    const injected = gdbEngine.extract(file, {
      structs: ['rq; shell exit'],
      enums: [],
      required: ['rq; shell exit'],
    });
    await t.throwsAsync(injected, { code: 'engine-unavailable', message: /names of plain letters/ });
    t.deepEqual(readdirSync(temporary), []);
  },
);

test.serial('without gdb the engine says how to get it', async (t) => {
  const path = program(t, { 'main.c': SOURCE });
  const { PATH } = process.env;
  process.env.PATH = '/nonexistent';
  try {
    await using file = await openKernelFile(path, { debugRoots: [] });
    t.regex((await gdbEngine.unavailable(file, REQUEST))!, /apt install gdb/);
    await t.throwsAsync(gdbEngine.extract(file, REQUEST), {
      code: 'engine-unavailable',
      message: /apt install gdb/,
    });
  } finally {
    process.env.PATH = PATH;
  }
});

test('declarations come apart', (t) => {
  for (const [text, name, type, base, shape] of [
    ['unsigned int b', 'b', 'unsigned int', 'unsigned int', 'plain'],
    ['struct pair array[2][3]', 'array', 'struct pair [2][3]', 'struct pair', 'plain'],
    ['struct rq *self', 'self', 'struct rq *', 'struct rq', 'pointer'],
    ['const char * const words[2]', 'words', 'const char * const[2]', 'char', 'pointer'],
    ['const char * const * volatile text', 'text', 'const char * const * volatile', 'char', 'pointers'],
    ['int (*table[4])(void)', 'table', 'int (*[4])(void)', 'int', 'function'],
    ['int (*rows)[5]', 'rows', 'int (*)[5]', 'int', 'function'],
    ['void (*(*nested)(int))(char)', 'nested', 'void (*(*)(int))(char)', 'void', 'pointers'],
    ['enum {A, B = 5} e', 'e', 'enum {...}', 'enum {...}', 'plain'],
    ['unsigned char flex[]', 'flex', 'unsigned char []', 'unsigned char', 'plain'],
  ] as const) {
    t.like(parseDeclaration(text, true), { name, type, base, shape }, text);
  }
  t.like(parseDeclaration('long long c : 40', true), { name: 'c', type: 'long long', bitSize: 40 });
  t.is(parseDeclaration('struct list_head *', false)!.type, 'struct list_head *');
  t.is(parseDeclaration('unsigned int', true)?.name, 'int');
  t.is(parseDeclaration('', true), null);
});

test("arrays of structures do not inherit gdb's stale offsets", (t) => {
  // As gdb 13 prints struct { long a; struct { int b; } c; struct { int x; int y; } d[2]; }.
  const record = parsePtype(`/* offset      |    size */  type = struct s {
/*      0      |       8 */    long a;
/*      8      |       4 */    struct {
/*      8      |       4 */        int b;

                                   /* total size (bytes):    4 */
                               } c;
/*     12      |      16 */    struct {
/*      8      |       4 */        int x;
/*     12      |       4 */        int y;
                               } d[2];

                               /* total size (bytes):   32 */
                             }`);
  const offsets = placeFields(record);
  const inner = record.fields[2]!.record!.fields;
  t.deepEqual(
    inner.map((field) => offsets.get(field)),
    [12, 16],
  );
  t.is(record.size, 32);
});

test('text that is no structure is refused', (t) => {
  for (const text of ['', 'type = int', '/* offset      |    size */  type = struct s {', 'nonsense']) {
    t.throws(() => parsePtype(text), { instanceOf: PtypeError }, text);
  }
});
