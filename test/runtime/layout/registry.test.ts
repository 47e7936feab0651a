import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { generate } from '../../../codegen/index.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { kernelOf, knownKernels, registryPaths } from '../../../runtime/layout/registry.ts';
import { temporaryFolder } from '../../codegen/folder.ts';
import { sampleLayout } from '../../codegen/sample.ts';
import { generated } from './sample.ts';

const B = 'bb'.repeat(20);

test('stores are read in order, a build once, one that is not there holds nothing, and a change shows at once', async (t) => {
  const [one, two] = [await temporaryFolder(t), await temporaryFolder(t)];
  const paths = [join(one, 'registry.ts'), join(two, 'registry.ts'), join(two, 'none', 'registry.ts')];
  t.deepEqual(await knownKernels(paths), []);
  const layout = sampleLayout();
  await generate(layout, { outDir: two });
  t.deepEqual(
    (await knownKernels(paths)).map(({ store }) => store),
    [two],
  );
  await generate({ ...layout, kernel: { ...layout.kernel, release: '5.0', buildId: B } }, { outDir: two });
  await generate(layout, { outDir: one });
  t.deepEqual(
    (await knownKernels(paths)).map(({ store, folder }) => [store, folder]),
    [
      [one, '6.1.0-test'],
      [two, '5.0'],
    ],
  );
});

test('the compiled store loads by itself', async (t) => {
  const outDir = await temporaryFolder(t);
  await generate(sampleLayout(), { outDir, compiledDir: outDir });
  const [kernel] = await knownKernels([join(outDir, 'registry.js')]);
  const layout = await kernel!.load();
  t.is(layout.field('rq', 'pairs[1].exec_clock').offset, 88);
  t.deepEqual(kernel!.schedulers, ['cfs']);
});

test('a registry or layout that cannot be trusted is refused', async (t) => {
  const outDir = await temporaryFolder(t);
  const { path } = await generate(sampleLayout(), { outDir });
  const registry = join(outDir, 'registry.ts');
  const [kernel] = await knownKernels([registry]);
  await writeFile(
    join(path, 'index.ts'),
    `export const layout = { $kernel: { buildId: '${B}', banner: kernel.banner } };`.replace(
      'kernel.banner',
      JSON.stringify(kernel!.banner),
    ),
  );
  t.is((await t.throwsAsync(kernel!.load(), { instanceOf: DomschedError }))?.code, 'layout-unknown');
  await writeFile(registry, 'export const registry = [;');
  const error = await t.throwsAsync(knownKernels([registry]), { instanceOf: DomschedError });
  t.is(error?.code, 'layout-unknown');
});

test('the user’s store follows the XDG base directories', (t) => {
  t.is(registryPaths({ XDG_DATA_HOME: '/data', HOME: '/home/u' })[1], '/data/domsched/layouts/registry.ts');
  t.is(
    registryPaths({ XDG_DATA_HOME: 'relative', HOME: '/home/u' })[1],
    '/home/u/.local/share/domsched/layouts/registry.ts',
  );
});

test('a layout that was made at run time is the same kernel as one that was generated', async (t) => {
  const stored = await generated(t);
  const made = await kernelOf(sampleLayout()).load();
  t.deepEqual(made.kernel, stored.kernel);
  t.deepEqual(made.structNames, stored.structNames);
  t.is(made.symbol('runqueues'), stored.symbol('runqueues'));
  for (const struct of made.structNames) {
    const [ours, theirs] = [made.requireStruct(struct), stored.requireStruct(struct)];
    t.deepEqual(ours.anonymous, theirs.anonymous);
    t.deepEqual([...ours.members.keys()], [...theirs.members.keys()]);
    for (const path of ours.members.keys()) {
      const { read: _, ...facts } = ours.field(path);
      const { read: __, ...others } = theirs.field(path);
      t.deepEqual(facts, others, `${struct}.${path}`);
    }
  }
});

test('structures that nobody asks for are not made', async (t) => {
  const layout = sampleLayout();
  const asked: string[] = [];
  // Members are looked through once, to refuse lies, and again when a structure is made.
  const counted = Object.entries(layout.structs).map(([name, struct]) => {
    const { members } = struct;
    const get = () => {
      asked.push(name);
      return members;
    };
    return [name, Object.defineProperty({ ...struct }, 'members', { enumerable: true, get })] as const;
  });
  const view = await kernelOf({ ...layout, structs: Object.fromEntries(counted) }).load();
  t.true(view.structNames.length > 1);
  asked.length = 0;
  t.true(view.has('rq', 'nr_running'));
  t.is(view.struct('rq'), view.requireStruct('rq'));
  t.deepEqual([...new Set(asked)], ['rq']);
});

test('a layout made of lies is refused', (t) => {
  const outside = sampleLayout();
  outside.structs.rq!.members[0]!.offset = 126;
  const twice = sampleLayout();
  twice.structs.rq!.members.push(twice.structs.rq!.members[0]!);
  const nameless = sampleLayout();
  nameless.kernel.banner = null;
  const nowhere = sampleLayout();
  nowhere.structs.rq!.members[0]!.offset = -4;
  for (const [layout, why] of [
    [nowhere, /rq\.nr_running has no place/],
    [outside, /rq\.nr_running ends at byte 130 of a struct of 128 bytes/],
    [twice, /rq\.nr_running is there twice/],
    [nameless, /no banner/],
  ] as const) {
    const error = t.throws(() => kernelOf(layout), { instanceOf: DomschedError, message: why });
    t.is(error?.code, 'layout-unknown');
  }
});
