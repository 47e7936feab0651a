import test from 'ava';
import type { StructureMember } from '../../extractor/contract.ts';
import { compareResults, crossCheck } from '../../extractor/cross-check.ts';
import { crossCheckTable, WHY } from '../../extractor/cross-check-table.ts';
import { openKernelFile } from '../../extractor/elf/open.ts';
import type { EngineResult, Unknowable } from '../../extractor/engine.ts';
import { loadEngine } from '../../extractor/engines.ts';
import { engineRequest } from '../../extractor/extract.ts';
import { program } from './dwarf/compilers.ts';
import { addBtf } from './fixture.ts';

/** A member of which some facts are not known. */
type MemberChanges = { [Key in keyof StructureMember]?: StructureMember[Key] | undefined };

function result(member: MemberChanges, more: Partial<EngineResult> = {}): EngineResult {
  const full = {
    name: 'm',
    offset: 0,
    size: 4,
    type: 'int',
    kind: 'int',
    signed: true,
    ...member,
  } as StructureMember;
  return {
    structs: { s: { name: 's', sourceName: 's', kind: 'struct', size: 8, members: [full] } },
    enums: { e: { size: 4, values: { A: 1 } } },
    constants: { C: 1 },
    dwarfVersion: null,
    ...more,
  };
}

const changes: Partial<StructureMember>[] = [
  { name: 'other' },
  { offset: 4 },
  { size: 8 },
  { type: 'unsigned int' },
  { kind: 'enum' },
  { signed: false },
  { bitOffset: 1 },
  { bitSize: 1 },
  { dims: [1] },
  { element: { kind: 'int', size: 4 } },
  { struct: 'x' },
  { target: 'x' },
  { enum: 'x' },
  { members: [{ name: 'n', offset: 0, size: 4, type: 'int', kind: 'int' }] },
];

for (const change of changes) {
  test(`seen on either side: ${JSON.stringify(change)}`, (t) => {
    t.true(compareResults(result({}), result(change)).disagreements.length > 0);
    t.true(compareResults(result(change), result({})).disagreements.length > 0);
    t.deepEqual(compareResults(result(change), result(change)), { disagreements: [], notCompared: [] });
  });
}

test('seen: structures, enumerators, constants that one side lacks or has otherwise', (t) => {
  const first = result({});
  const others: Partial<EngineResult>[] = [
    { structs: {} },
    { structs: { ...first.structs, more: first.structs.s! } },
    { structs: { s: { ...first.structs.s!, size: 16 } } },
    { structs: { s: { ...first.structs.s!, kind: 'union' } } },
    { structs: { s: { ...first.structs.s!, sourceName: 'other' } } },
    { enums: {} },
    { enums: { e: { size: 8, values: { A: 1 } } } },
    { enums: { e: { size: 4, values: { A: 2 } } } },
    { enums: { e: { size: 4, values: { A: 1, B: 2 } } } },
    { constants: { C: 2 } },
    { constants: {} },
  ];
  for (const other of others) {
    t.is(compareResults(first, result({}, other)).disagreements.length, 1, JSON.stringify(other));
  }
});

test('not held against an engine, but told: what its debug information does not hold', (t) => {
  const same: [Unknowable, MemberChanges, MemberChanges][] = [
    ['dimensions', { type: 'int [2][7]', dims: [2, 7] }, { type: 'int [14]', dims: [14] }],
    ['array-bounds', { type: 'char [0]', dims: [0] }, { type: 'char []', dims: [0] }],
    ['prototypes', { type: 'int (*)()' }, { type: 'int (*)(void)' }],
    ['atomics', { type: '_Atomic int' }, { type: 'int' }],
    ['char-sign', { type: 'char', signed: true }, { type: 'char', signed: undefined }],
    ['enum-sign', { kind: 'enum', signed: true }, { kind: 'enum', signed: undefined }],
  ];
  for (const [because, a, b] of same) {
    for (const [x, y] of [
      [a, b],
      [b, a],
    ] as const) {
      const { disagreements, notCompared } = compareResults(result(x), result(y, { unknowable: [because] }));
      t.deepEqual(disagreements, [], because);
      t.deepEqual([...new Set(notCompared.map((fact) => fact.because))], [because]);
      // An engine that does know is not believed that it differs for this reason.
      t.true(compareResults(result(x), result(y)).disagreements.length > 0, because);
    }
  }
});

test('held against an engine: differences that what it does not know cannot explain', (t) => {
  const different: [Partial<StructureMember>, Partial<StructureMember>][] = [
    [
      { type: 'int [2][7]', dims: [2, 7] },
      { type: 'int [15]', dims: [15] },
    ],
    [
      { type: 'int [2][7]', dims: [2, 7] },
      { type: 'int [15]', dims: [14] },
    ],
    [{ signed: true }, { signed: false }],
    [{ type: '_Atomic int' }, { type: 'unsigned int' }],
  ];
  const unknowable = Object.keys(WHY) as Unknowable[];
  for (const [a, b] of different) {
    t.true(compareResults(result(a), result(b, { unknowable })).disagreements.length > 0);
  }
});

test('enumerators of a file that does not say their sign are the same bits', (t) => {
  const values = (value: number | string, size: number, unknowable: Unknowable[]) =>
    result({}, { enums: { e: { size, values: { A: value } } }, unknowable });
  const [said, silent] = [values(0xffff_ffff, 4, []), values(-1, 4, ['enum-sign'])];
  t.deepEqual(
    compareResults(said, silent).notCompared.map(({ where, because }) => [where, because]),
    [['enum e.A', 'enum-sign']],
  );
  t.is(compareResults(said, values(-1, 4, [])).disagreements.length, 1);
  t.is(compareResults(said, values(-2, 4, ['enum-sign'])).disagreements.length, 1);
});

/** Headers that many units include, and one that the scheduler's own does not. */
const UNITS = {
  'kernel/sched/core.c': `
    struct rq { int nr_running; }; struct task_struct { int pid; struct rq *rq; };
    struct rq rq; struct task_struct task; int schedule(void) { return rq.nr_running; }
    int main(void) { return 0; }`,
  'kernel/sys.c': `
    enum system_states { SYSTEM_BOOTING, SYSTEM_RUNNING = 3 };
    struct cred { int uid; enum system_states state; }; struct cred name;
    enum { IRQ_WORK_LAZY = 4 }; int length = IRQ_WORK_LAZY;
    enum tagged { IRQ_WORK_BUSY = 2 }; enum tagged flag = IRQ_WORK_BUSY;`,
};

test('every engine sees what units beside the scheduler define, and enumerators without a tag only', async (t) => {
  const path = addBtf(program(t, UNITS));
  await using file = await openKernelFile(path, { debugRoots: [] });
  const request = { ...engineRequest({ selection: { kind: 'scheduler' } }), thorough: true };
  const rows = await crossCheck(file, request);
  t.deepEqual(
    rows.map(({ engine, structs, enumerators, disagreements }) => [
      engine,
      structs,
      enumerators,
      disagreements,
    ]),
    (['dwarf', 'btf', 'gdb'] as const).map((engine) => [engine, 3, 2, []]),
  );
  const { constants } = await (await loadEngine('gdb')).extract(file, request);
  t.deepEqual(constants, { IRQ_WORK_LAZY: 4 });
});

test('an engine that cannot answer is left out, with the reason', async (t) => {
  const path = addBtf(program(t, UNITS));
  await using file = await openKernelFile(path, { debugRoots: [] });
  const request = engineRequest({ selection: { kind: 'all' } });
  const rows = await crossCheck(file, request);
  t.deepEqual(
    rows.map(({ unavailable }) => unavailable === null),
    [true, true, false],
  );
  t.regex(crossCheckTable(rows, 1), /gdb +│ not used: gdb is asked about one structure at a time/);
});

test('the table says what was not compared, and why', (t) => {
  const row = { unavailable: null, structs: 1, members: 1, enumerators: 0, ms: 0 };
  const found = compareResults(
    result({ type: 'char', signed: true }),
    result({ type: 'char', signed: undefined }, { unknowable: ['char-sign'] }),
  );
  const table = crossCheckTable(
    [
      { ...row, engine: 'dwarf', against: null, disagreements: [], notCompared: [] },
      { ...row, engine: 'btf', against: 'dwarf', ...found },
    ],
    10,
  );
  t.regex(
    table,
    /not compared: 1 facts? of btf and dwarf, since one of them does not say whether char is signed/,
  );
  t.regex(table, /\(s\.m is true and none\)/);
});
