/** The files that kernels/o1 builds, against the measured facts, as tools that are not ours read them. */
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import fc from 'fast-check';
import { readConfig } from '../../kernels/config.ts';
import { layoutHeader, type VariantFacts } from '../../kernels/o1/structs.ts';
import { buildO1, kernelFile, type O1Variant, readSystemMap } from '../live/o1.ts';

const kernels = path.resolve(import.meta.dirname, '../../kernels');
const variants = ['base', 'preempt', 'schedstats', 'up'] as const;
const files = [
  ...variants.map((variant) => ({ variant, build: variant as O1Variant, dwarf: 2 })),
  { variant: 'base' as const, build: 'base-dwarf5' as const, dwarf: 5 },
];

async function facts(variant: string): Promise<VariantFacts> {
  return JSON.parse(
    await readFile(path.join(kernels, 'facts', `linux-2.6.16-x86_64-${variant}.json`), 'utf8'),
  );
}

test.before(async (t) => {
  t.timeout(300_000);
  await buildO1();
});

/** What gdb finds in a file's debug information: of each type its size and of each member [bit position, size]. */
async function gdbLayout(
  file: string,
  types: string[],
): Promise<Record<string, [number, Record<string, number[]>]>> {
  const script = [
    'import gdb, json',
    `types = json.loads('''${JSON.stringify(types)}''')`,
    'out = {}',
    'for name in types:',
    '    t = gdb.lookup_type(name).strip_typedefs()',
    '    out[name] = [t.sizeof, {f.name: [f.bitpos, f.type.sizeof, f.bitsize] for f in t.fields()}]',
    'print(json.dumps(out))',
  ].join('\n');
  const { stdout } = await execa('gdb', [
    '-nx',
    '-batch',
    '-ex',
    `python exec(${JSON.stringify(script)})`,
    file,
  ]);
  return JSON.parse(stdout);
}

for (const { variant, build, dwarf } of files) {
  test(`${build}: gdb reads every measured member at its measured place`, async (t) => {
    const { structs } = await facts(variant);
    const typeOf = (name: string) => (structs[name]!.kind.startsWith('typedef') ? name : `struct ${name}`);
    const read = await gdbLayout(kernelFile(build), Object.keys(structs).map(typeOf));
    let members = 0;
    for (const [name, { size, fields }] of Object.entries(structs)) {
      const [gotSize, got] = read[typeOf(name)]!;
      t.is(gotSize, size, `sizeof ${name}`);
      for (const field of fields) {
        const bits = field.bit_size ?? 0;
        const position = field.offset * 8 + (field.bit_offset ?? 0);
        t.deepEqual(got[field.name], [position, field.size, bits], `${name}.${field.name}`);
        members++;
      }
      t.is(Object.keys(got).length, fields.length, `${name}: no member that the real one lacks`);
    }
    t.true(members > 200);
  });

  test(`${build}: DWARF ${dwarf}, build-id and PVH note in memory, banner, local per-CPU queues`, async (t) => {
    const file = kernelFile(build);
    const { stdout: units } = await execa('readelf', ['--debug-dump=info', '--dwarf-depth=1', file]);
    const versions = [...units.matchAll(/^ {3}Version: +(\d+)$/gm)].map(([, version]) => Number(version));
    t.true(versions.length > 10);
    t.deepEqual([...new Set(versions)], [dwarf]);
    t.regex(units, /DW_AT_name .*kernel\/sched\.c/);

    const { stdout: notes } = await execa('readelf', ['-nW', file]);
    t.regex(notes, /Build ID: [0-9a-f]{40}/);
    t.regex(notes, /Xen/);
    const { stdout: headers } = await execa('readelf', ['-lW', file]);
    const note = /NOTE +0x\w+ 0x(\w+)/.exec(headers)!;
    const loads = [...headers.matchAll(/LOAD +0x\w+ 0x(\w+) 0x\w+ 0x(\w+)/g)];
    const at = BigInt(`0x${note[1]}`);
    t.true(
      loads.some(
        ([, start, size]) => at >= BigInt(`0x${start}`) && at < BigInt(`0x${start}`) + BigInt(`0x${size}`),
      ),
      'a loaded segment covers the notes',
    );

    const release = `2.6.16.33${variant === 'base' ? '' : `-${variant}`}`;
    const content = await readFile(file);
    t.true(content.includes(`Linux version ${release} (domsched@o1-guest)`));
    t.false(content.includes(kernels), 'the folder it was built in leaves no trace');

    const { stdout: symbols } = await execa('nm', [file]);
    t.regex(symbols, /^[0-9a-f]+ [bd] per_cpu__runqueues$/m);
    const map = await readSystemMap(build);
    t.is(map.get('_text'), 0xffffffff80100000n);
    t.true(map.has('init_task') && map.has('linux_banner') && map.has('_cpu_pda'));
  });
}

for (const variant of variants)
  test(`${variant}: configured as the kernel whose layout was measured`, async (t) => {
    const config = readConfig(path.join(kernels, 'o1', 'configs', variant, 'config'));
    for (const [option, value] of Object.entries((await facts(variant)).config))
      t.is(config[option], value, option);
    t.is(config.CONFIG_LOCALVERSION, variant === 'base' ? '' : `-${variant}`);
  });

test('the same sources make the same file again', async (t) => {
  t.timeout(120_000);
  const folder = await mkdtemp(path.join(tmpdir(), 'o1-build-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const copy = path.join(folder, 'kernels');
  await execa('cp', ['-r', kernels, copy]);
  await rm(path.join(copy, 'o1', 'build'), { recursive: true, force: true });
  const target = 'build/base/vmlinux-2.6.16.33';
  await execa('make', ['-s', '-C', path.join(copy, 'o1'), `NODE=${process.execPath}`, target]);
  const digest = async (file: string) =>
    createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
  t.is(await digest(path.join(copy, 'o1', target)), await digest(kernelFile('base')));
});

test('the header generator makes C that puts members where any facts want them', async (t) => {
  t.timeout(120_000);
  const kinds = {
    'unsigned char': 1,
    'unsigned short': 2,
    int: 4,
    'unsigned long': 8,
    'struct opaque_t *': 8,
  };
  // Members in order, each at or after where C would put it, with gaps: as a compiler could have laid them out.
  const member = fc.record({
    type: fc.constantFrom(
      ...(Object.keys(kinds) as (keyof typeof kinds)[]).filter((k) => k !== 'unsigned char'),
    ),
    gap: fc.integer({ min: 0, max: 3 }),
    count: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(member, { minLength: 1, maxLength: 8 }), async (members) => {
      let end = 0;
      const fields = members.map(({ type, gap, count }, i) => {
        const unit = kinds[type];
        const offset = Math.ceil(end / unit) * unit + gap * unit;
        end = offset + unit * (count ?? 1);
        return {
          name: `m${i}`,
          offset,
          size: unit * (count ?? 1),
          type: count === undefined ? type : `${type} [${count}]`,
          ...(count === undefined ? {} : { count }),
        };
      });
      const made = {
        kernel: 'none',
        variant: 'none',
        config: {},
        structs: { thing: { kind: 'struct', size: Math.ceil(end / 8) * 8, fields } },
      };
      // The header carries its own assertions on every offset: it compiles only when they all hold.
      const { stderr } = await execa('gcc', ['-fsyntax-only', '-xc', '-'], {
        input: `struct opaque_t;\n${layoutHeader(made)}`,
        reject: false,
      });
      t.notRegex(stderr, /error/, JSON.stringify(made));
    }),
    { numRuns: 25 },
  );
});
