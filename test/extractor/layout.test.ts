import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import type { Structure } from '../../extractor/contract.ts';
import { compareResults } from '../../extractor/cross-check.ts';
import { openKernelFile } from '../../extractor/elf/open.ts';
import type { EngineResult } from '../../extractor/engine.ts';
import { loadEngine } from '../../extractor/engines.ts';
import type { EnumNode, RecordNode, TypeNode } from '../../extractor/graph.ts';
import { LayoutBuilder } from '../../extractor/layout.ts';
import { scratchFolder } from './fixture.ts';
import { measuringProgram, placesOf, randomStructures } from './random-structures.ts';

const ref = (node: TypeNode) => () => node;
const int: TypeNode = { kind: 'base', name: 'int', size: 4, encoding: 'signed' };
const builder = () => new LayoutBuilder({ corrupt: 'corrupt-btf', onConflict: 'refuse' });

function record(name: string | null, size: number, members: RecordNode['members']): RecordNode {
  return { kind: 'struct', name, size, members };
}

test('random structures lie where the compiler put them, by DWARF and by BTF', async (t) => {
  const draws = fc.sample(randomStructures(60), { numRuns: 1, seed: 7 });
  for (const structures of draws) {
    const folder = scratchFolder(t);
    const source = join(folder, 'input.c');
    const program = join(folder, 'program');
    writeFileSync(source, measuringProgram(structures));
    execFileSync('gcc', ['-w', '-g', '-O0', '-std=gnu11', source, '-o', program]);
    execFileSync('pahole', ['--btf_encode_force', '-J', program]);
    const measured = execFileSync(program, { encoding: 'utf8' }).trim().split('\n');
    t.true(measured.length > structures.length * 5);

    const results = new Map<string, EngineResult>();
    for (const name of ['dwarf', 'btf'] as const) {
      await using file = await openKernelFile(program);
      const engine = await loadEngine(name);
      const names = structures.map((structure) => structure.name);
      results.set(name, await engine.extract(file, { structs: names, required: names, enums: [] }));
    }
    for (const [engine, { structs }] of results) {
      for (const line of measured) {
        const [name, path, ...place] = line.split(' ') as [string, string, string, string];
        const structure = structs[name]!;
        const ours = path === '-' ? `0 ${structure.size * 8}` : placesOf(structure.members).get(path);
        t.is(ours, place.join(' '), `${engine}: ${name}.${path}`);
      }
    }
    const [first, second] = [results.get('dwarf')!, results.get('btf')!];
    t.deepEqual(compareResults(first, second).disagreements, []);
  }
});

test('facts beyond places: kinds, signs, dimensions, tags', (t) => {
  const colour: EnumNode = {
    kind: 'enum',
    name: 'colour',
    size: 4,
    signed: true,
    values: [
      ['RED', -1n],
      ['HUGE', 2n ** 63n],
    ],
  };
  const inner = record('inner', 8, [{ name: 'a', bitOffset: 0, type: ref(int) }]);
  const pointer: TypeNode = {
    kind: 'pointer',
    size: 8,
    to: ref({ kind: 'typedef', name: 'inner_t', of: ref(inner) }),
  };
  const node = record('outer', 64, [
    { name: 'rows', bitOffset: 0, type: ref({ kind: 'array', of: ref(inner), dims: [2, null] }) },
    { name: 'links', bitOffset: 64, type: ref({ kind: 'array', of: ref(pointer), dims: [2] }) },
    { name: 'colour', bitOffset: 192, type: ref(colour) },
    { name: 'inner', bitOffset: 256, type: ref({ kind: 'const', of: ref(inner) }) },
    {
      name: null,
      bitOffset: 320,
      type: ref(record(null, 8, [{ name: 'deep', bitOffset: 32, type: ref(int) }])),
    },
    { name: 'bits', bitOffset: 397, bitSize: 5, type: ref(int) },
    { name: null, bitOffset: 402, bitSize: 3, type: ref(int) },
  ]);
  const layout = builder();
  t.is(layout.add({ node, where: 'here' }), 'outer');
  const { outer, inner: innerStructure } = layout.structs() as { outer: Structure; inner: Structure };
  t.is(innerStructure.size, 8);
  t.deepEqual(outer.members, [
    {
      name: 'rows',
      offset: 0,
      size: 0,
      type: 'struct inner [2][]',
      kind: 'array',
      dims: [2, 0],
      element: { kind: 'struct', size: 8 },
      struct: 'inner',
    },
    {
      name: 'links',
      offset: 8,
      size: 16,
      type: 'inner_t *[2]',
      kind: 'array',
      dims: [2],
      element: { kind: 'pointer', size: 8 },
      target: 'inner',
    },
    { name: 'colour', offset: 24, size: 4, type: 'enum colour', kind: 'enum', signed: true, enum: 'colour' },
    { name: 'inner', offset: 32, size: 8, type: 'const struct inner', kind: 'struct', struct: 'inner' },
    {
      name: null,
      offset: 40,
      size: 8,
      type: 'struct {...}',
      kind: 'struct',
      members: [{ name: 'deep', offset: 44, size: 4, type: 'int', kind: 'int', signed: true }],
    },
    { name: 'bits', offset: 49, size: 4, bitOffset: 5, bitSize: 5, type: 'int', kind: 'int', signed: true },
  ]);
  t.deepEqual(layout.enums(), { colour: { size: 4, values: { RED: -1, HUGE: '9223372036854775808' } } });
});

test('canonical names: runqueue is rq, as itself and as a target', (t) => {
  const runqueue = record('runqueue', 8, []);
  const user = record('user', 8, [
    { name: 'rq', bitOffset: 0, type: ref({ kind: 'pointer', size: 8, to: ref(runqueue) }) },
  ]);
  const layout = builder();
  t.is(layout.add({ node: runqueue, where: 'here' }), 'rq');
  layout.add({ node: user, where: 'here' });
  t.is(layout.structs().rq?.sourceName, 'runqueue');
  t.is(layout.structs().user?.members[0]?.target, 'rq');
});

test('equal definitions from two units are one; different ones are refused with both places', (t) => {
  const layout = builder();
  const one = () => record('twice', 4, [{ name: 'a', bitOffset: 0, type: ref(int) }]);
  layout.add({ node: one(), where: 'first.c' });
  layout.add({ node: one(), where: 'second.c' });
  t.deepEqual(Object.keys(layout.structs()), ['twice']);
  const other = record('twice', 4, [{ name: 'b', bitOffset: 0, type: ref(int) }]);
  t.throws(() => layout.add({ node: other, where: 'third.c' }), {
    code: 'struct-conflict',
    message:
      /twice has two different definitions: 4 bytes in first\.c, 4 bytes in third\.c, where "int a" at 0/,
  });
});

test('flavours: all definitions are kept, and what embeds one says which', (t) => {
  const layout = new LayoutBuilder({ corrupt: 'corrupt-dwarf', onConflict: 'flavour' });
  for (const size of [4, 8]) {
    const inner = record('inner', size, []);
    layout.add({
      node: record('outer', 16, [{ name: 'in', bitOffset: 0, type: ref(inner) }]),
      where: `${size}.c`,
    });
  }
  const structs = layout.structs();
  t.deepEqual(Object.keys(structs), ['inner', 'outer', 'inner___2', 'outer___2']);
  t.is(structs.outer?.members[0]?.struct, 'inner');
  t.is(structs.outer___2?.members[0]?.struct, 'inner___2');
  t.is(structs.inner___2?.sourceName, 'inner');
  t.is(structs.inner___2?.name, 'inner___2');
});

test('names that JavaScript objects have by themselves are names like any other', (t) => {
  const layout = builder();
  for (const name of ['__proto__', 'constructor', 'toString']) {
    layout.add({
      node: record(name, 4, [{ name: '__proto__', bitOffset: 0, type: ref(int) }]),
      where: 'here',
    });
  }
  t.deepEqual(Object.keys(layout.structs()), ['__proto__', 'constructor', 'toString']);
});

const impossible: Record<string, RecordNode> = {
  'a structure that contains itself': (() => {
    const node: RecordNode = record('self', 8, [{ name: 'in', bitOffset: 0, type: () => node }]);
    return node;
  })(),
  'an anonymous structure that contains itself': (() => {
    const anonymous: RecordNode = record(null, 8, [{ name: null, bitOffset: 0, type: () => anonymous }]);
    return record('outer', 8, [{ name: 'in', bitOffset: 0, type: ref(anonymous) }]);
  })(),
  'members that double at every level': (() => {
    let node = record(null, 4, [{ name: 'x', bitOffset: 0, type: ref(int) }]);
    for (let level = 0; level < 40; level++) {
      const inner = node;
      node = record(null, 4, [
        { name: null, bitOffset: 0, type: ref(inner) },
        { name: null, bitOffset: 0, type: ref(inner) },
      ]);
    }
    return record('doubling', 4, [{ name: 'in', bitOffset: 0, type: ref(node) }]);
  })(),
  'a member beyond its structure': record('s', 4, [{ name: 'a', bitOffset: 32, type: ref(int) }]),
  'a member before its structure': record('s', 4, [{ name: 'a', bitOffset: -8, type: ref(int) }]),
  'a member within a byte': record('s', 8, [{ name: 'a', bitOffset: 3, type: ref(int) }]),
  'a bit field wider than its type': record('s', 16, [
    { name: 'a', bitOffset: 0, bitSize: 33, type: ref(int) },
  ]),
  'a bit field of no bits': record('s', 16, [{ name: 'a', bitOffset: 0, bitSize: 0, type: ref(int) }]),
  'a negative size': record('s', -1, []),
  'a size that is no number': record('s', Number.NaN, []),
  'a structure larger than any memory': record('s', 2 ** 60, []),
};

for (const [what, node] of Object.entries(impossible)) {
  test(`refused: ${what}`, (t) => {
    t.throws(() => builder().add({ node, where: 'type 7' }), {
      code: 'corrupt-btf',
      message: /corrupt at type 7: .*get an intact copy/,
    });
  });
}
