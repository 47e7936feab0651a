import test from 'ava';
import type { Member } from '../../extractor/contract.ts';
import { compareResults } from '../../extractor/cross-check.ts';
import type { EngineResult } from '../../extractor/engine.ts';

function result(member: Partial<Member>, more: Partial<EngineResult> = {}): EngineResult {
  const full: Member = { name: 'm', offset: 0, size: 4, type: 'int', kind: 'int', signed: true, ...member };
  return {
    structs: { s: { name: 's', sourceName: 's', kind: 'struct', size: 8, members: [full] } },
    enums: { e: { size: 4, values: { A: 1 } } },
    constants: { C: 1 },
    dwarfVersion: null,
    ...more,
  };
}

const changes: Partial<Member>[] = [
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
    t.true(compareResults(result({}), result(change)).length > 0);
    t.true(compareResults(result(change), result({})).length > 0);
    t.deepEqual(compareResults(result(change), result(change)), []);
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
  for (const other of others) t.is(compareResults(first, result({}, other)).length, 1, JSON.stringify(other));
});

test('not held against an engine: what BTF cannot say', (t) => {
  const same: [Partial<Member>, Partial<Member>][] = [
    [
      { type: 'int [2][7]', dims: [2, 7] },
      { type: 'int [14]', dims: [14] },
    ],
    [
      { type: 'char [0]', dims: [0] },
      { type: 'char []', dims: [0] },
    ],
    [{ type: 'int (*)()' }, { type: 'int (*)(void)' }],
    [{ type: '_Atomic int' }, { type: 'int' }],
  ];
  for (const [a, b] of same) t.deepEqual(compareResults(result(a), result(b)), []);
  const different: [Partial<Member>, Partial<Member>][] = [
    [
      { type: 'int [2][7]', dims: [2, 7] },
      { type: 'int [15]', dims: [15] },
    ],
    [
      { type: 'int [2][7]', dims: [2, 7] },
      { type: 'int [15]', dims: [14] },
    ],
  ];
  for (const [a, b] of different) t.true(compareResults(result(a), result(b)).length > 0);
});
