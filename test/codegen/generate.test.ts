import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { Project } from 'ts-morph';
import { check, generate } from '../../codegen/index.ts';
import type { StorePlace } from '../../codegen/place.ts';
import type { KernelLayout } from '../../extractor/contract.ts';
import { snapshot, temporaryFolder } from './folder.ts';
import { sampleLayout } from './sample.ts';

test('the same layout gives the same bytes, whatever the order of its keys', async (t) => {
  const [a, b] = [await temporaryFolder(t), await temporaryFolder(t)];
  const layout = sampleLayout();
  await generate(layout, { outDir: a, compiledDir: join(a, 'js') });
  const turned: KernelLayout = {
    ...layout,
    structs: reversed(layout.structs),
    symbols: reversed(layout.symbols),
    constants: reversed(layout.constants),
  };
  await generate(turned, { outDir: b, compiledDir: join(b, 'js') });
  t.deepEqual(await snapshot(b), await snapshot(a));
  const again = await generate(layout, { outDir: a });
  t.false(again.changed);
});

test('generated text is formatted: the formatter has nothing to change', async (t) => {
  const outDir = await temporaryFolder(t);
  await generate(sampleLayout(), { outDir });
  const project = new Project({ useInMemoryFileSystem: true });
  for (const [file, text] of Object.entries(await snapshot(outDir))) {
    const source = project.createSourceFile(file, text);
    source.formatText({ indentSize: 2 });
    t.is(source.getFullText(), text, file);
  }
});

test('a kernel’s module opens with producer, source file, build-id and, where there is one, the hash', async (t) => {
  const outDir = await temporaryFolder(t);
  const layout = sampleLayout();
  const { path } = await generate(layout, { outDir });
  const head = async () =>
    (await readFile(join(path, 'index.ts'), 'utf8')).split('\n').slice(0, 3).join('\n');
  for (const fact of ['domsched 0.1.0', 'vmlinux-6.1.0-test', '0123456789abcdef01234567', 'ab'.repeat(32)]) {
    t.true((await head()).includes(fact), fact);
  }
  layout.source.sha256 = null;
  await generate(layout, { outDir });
  t.false((await head()).includes('sha256'));
});

test('kernels share the structures that are equal in both, and one that no kernel has any more goes', async (t) => {
  const outDir = await temporaryFolder(t);
  const structures = async () =>
    (await readdir(join(outDir, 'structs'))).map((file) => file.split('.')[0]).sort();
  const other = sampleLayout();
  other.kernel = { ...other.kernel, release: '6.1.1', buildId: 'cd'.repeat(20) };
  other.structs.rq!.size = 256;
  await generate(sampleLayout(), { outDir });
  const alone = await structures();
  await generate(other, { outDir });
  t.deepEqual(await structures(), [...alone, 'rq'].sort());
  await generate({ ...other, structs: sampleLayout().structs }, { outDir });
  t.deepEqual(await structures(), alone);
});

test('what a program of the package gets: a kernel as one module of data, and its types', async (t) => {
  const [outDir, compiledDir] = [await temporaryFolder(t), await temporaryFolder(t)];
  const { folder } = await generate(sampleLayout(), { outDir, compiledDir });
  const [text, compiled] = [join(outDir, folder, 'index.ts'), join(compiledDir, folder, 'index.js')];
  t.deepEqual(await import(compiled), await import(text));
  t.regex(await readFile(join(compiledDir, folder, 'index.d.ts'), 'utf8'), /readonly rq: typeof rq;/);
});

test('another build of a release gets a folder of its own; each keeps its own at the next extraction', async (t) => {
  const outDir = await temporaryFolder(t);
  const first = sampleLayout();
  const second = sampleLayout();
  second.kernel.buildId = 'feedface'.repeat(5);
  t.is((await generate(first, { outDir })).folder, '6.1.0-test');
  t.is((await generate(second, { outDir })).folder, '6.1.0-test+feedface');
  second.structs.rq!.size = 192;
  t.is((await generate(second, { outDir })).folder, '6.1.0-test+feedface');
  t.deepEqual(await check(first, { outDir }), []);
  t.deepEqual(await check(second, { outDir }), []);
});

test('extractions that end at once are all registered', async (t) => {
  const outDir = await temporaryFolder(t);
  const releases = ['6.1.1', '6.1.2', '6.1.3', '6.1.4', '6.1.5'];
  await Promise.all(
    releases.map((release, i) => {
      const layout = sampleLayout();
      layout.kernel = { ...layout.kernel, release, buildId: `${i}`.repeat(40) };
      return generate(layout, { outDir });
    }),
  );
  const registry = await readFile(join(outDir, 'registry.ts'), 'utf8');
  t.deepEqual(
    [...registry.matchAll(/folder: '([^']+)'/g)].map((match) => match[1]),
    releases,
  );
});

test('an interrupted generation leaves the store as it was', async (t) => {
  const outDir = await temporaryFolder(t);
  await generate(sampleLayout(), { outDir });
  const before = await snapshot(outDir);
  const other = sampleLayout();
  other.structs.rq!.size = 256;
  // Aborted at any of the polls of the signal, among them the last one before the folders change places.
  for (let polls = 0; ; polls++) {
    let left = polls;
    const signal = {
      throwIfAborted: () => {
        if (left-- === 0) throw new DOMException('stop', 'AbortError');
      },
    } as AbortSignal;
    const outcome = await generate(other, { outDir, signal }).then(
      () => null,
      (error: { code?: string }) => error,
    );
    if (outcome === null) {
      t.true(polls >= 3);
      break;
    }
    t.is(outcome.code, 'interrupted');
    t.deepEqual(await snapshot(outDir), before);
  }
});

test('what a killed process left between two renames is put back', async (t) => {
  const outDir = await temporaryFolder(t);
  const { path } = await generate(sampleLayout(), { outDir });
  const before = await snapshot(outDir);
  // No process has this id: Linux counts to 2^22 at most.
  await rename(path, join(outDir, '.old~4194305~6.1.0-test'));
  await mkdir(join(outDir, '.new~4194305~6.1.0-test'));
  await writeFile(join(outDir, '.new~4194305~6.1.0-test', 'index.ts'), 'half');
  await writeFile(join(outDir, 'structs', '.new~4194305~rq.0123456789abcdef.ts'), 'half');
  await generate(sampleLayout(), { outDir });
  t.deepEqual(await snapshot(outDir), before);
});

test('no space left, at whatever byte: the store and its compiled form stay as they were', async (t) => {
  const folder = await temporaryFolder(t);
  const place = { outDir: join(folder, 'ts'), compiledDir: join(folder, 'js') };
  // Many kernels make the registry the largest file but for the bundle.
  for (let i = 0; i < 12; i++) {
    const layout = sampleLayout();
    layout.kernel = {
      ...layout.kernel,
      release: `6.1.${i}`,
      buildId: i.toString(16).repeat(40).slice(0, 40),
    };
    await generate(layout, place);
  }
  const before = await snapshot(folder);
  const other = sampleLayout();
  other.structs.rq!.size = 256;
  const largest = Math.max(...Object.values(before).map((text) => text.length));
  let refused = 0;
  for (let kib = 1; ; kib++) {
    const outcome = await generateWithin(kib, other, place, folder);
    if (outcome === 'done') break;
    refused++;
    t.is(outcome, 'no-space', `${kib} KiB`);
    t.deepEqual(await snapshot(folder), before);
    t.true(kib * 1024 <= largest * 2);
  }
  // Below the size of a module, of the registry, and of the bundle.
  t.true(refused >= 3);
  t.notDeepEqual(await snapshot(folder), before);
});

/** Generates in a process whose files may have so many KiB. @returns the code of its refusal, or `done` */
async function generateWithin(
  kib: number,
  layout: KernelLayout,
  place: StorePlace,
  folder: string,
): Promise<string> {
  const module = new URL('../../codegen/index.ts', import.meta.url).href;
  const script = `
    const { generate } = await import(${JSON.stringify(module)});
    const outcome = await generate(${JSON.stringify(layout)}, ${JSON.stringify(place)}).then(() => 'done', (error) => error.code);
    console.log(outcome);`;
  const limited = 'trap "" XFSZ; ulimit -f "$1"; shift; exec "$@"';
  const node = [process.execPath, '--input-type=module', '-e', script];
  const { stdout } = await execa('bash', ['-c', limited, 'bash', String(kib), ...node], { cwd: folder });
  return stdout;
}

test('a place that cannot be written is refused by name', async (t) => {
  const folder = await temporaryFolder(t);
  await writeFile(join(folder, 'file'), '');
  const error = await t.throwsAsync(generate(sampleLayout(), { outDir: join(folder, 'file') }));
  t.is((error as { code?: string }).code, 'output-failed');
  t.deepEqual(await snapshot(folder), { file: '' });
});

test('check tells which fact differs, and writes nothing', async (t) => {
  const outDir = await temporaryFolder(t);
  const missing = await check(sampleLayout(), { outDir });
  t.regex(missing[0]!.message, /no layout of this kernel/);
  t.deepEqual(await snapshot(outDir), {});
  await generate(sampleLayout(), { outDir });
  const before = await snapshot(outDir);

  const changed = sampleLayout();
  changed.structs.rq!.members[0]!.offset = 124;
  changed.structs.cfs_rq!.members.pop();
  changed.symbols.runqueues = '0x31990';
  changed.kernel.buildId = 'cd'.repeat(20);
  changed.constants.TASK_COMM_LEN = 32;
  const messages = (await check(changed, { outDir })).map((difference) => difference.message);
  t.deepEqual(messages.sort(), [
    'TASK_COMM_LEN: generated 16, file 32',
    'buildId: generated 0123456789abcdef0123456789abcdef01234567, file cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',
    'cfs_rq.min_vruntime: generated unsigned long at 16, file nothing',
    'rq.nr_running: offset: generated 0, file 124',
    'runqueues: generated 0x31980, file 0x31990',
  ]);
  t.deepEqual(await snapshot(outDir), before);
});

test('check sees files that were edited, removed or added by hand, and a registry that does not follow', async (t) => {
  const outDir = await temporaryFolder(t);
  const { path } = await generate(sampleLayout(), { outDir });
  const file = (await readdir(join(outDir, 'structs'))).find((name) => name.startsWith('rq.'))!;
  const rqPath = join(outDir, 'structs', file);
  const rq = await readFile(rqPath, 'utf8');
  await writeFile(
    rqPath,
    rq.replace('bits: { offset: 116, size: 1, shift: 0 }', 'bits: { offset: 117, size: 1, shift: 0 }'),
  );
  t.deepEqual(
    (await check(sampleLayout(), { outDir })).map(({ where, property }) => [where, property]),
    [['rq.flag', 'bits']],
  );
  await writeFile(rqPath, rq.replace('offset: 0, size: 4', 'offset: 4, size: 4'));
  t.deepEqual(
    (await check(sampleLayout(), { outDir })).map(({ where, property }) => [where, property]),
    [['rq.nr_running', 'offset']],
  );
  await writeFile(rqPath, `${rq}// by hand\n`);
  t.deepEqual(
    (await check(sampleLayout(), { outDir })).map(({ about }) => about),
    ['text'],
  );
  await rm(rqPath);
  t.deepEqual(
    (await check(sampleLayout(), { outDir })).map(({ message }) => message),
    ['rq: generated nothing, file there'],
  );
  await writeFile(rqPath, rq);
  const index = await readFile(join(path, 'index.ts'), 'utf8');
  await writeFile(join(path, 'index.ts'), `${index}// by hand\n`);
  t.deepEqual(
    (await check(sampleLayout(), { outDir })).map(({ about, where }) => [about, where]),
    [['text', '6.1.0-test/index.ts']],
  );
  await writeFile(join(path, 'index.ts'), index);
  await rm(join(outDir, 'registry.ts'));
  t.deepEqual(
    (await check(sampleLayout(), { outDir })).map(({ about }) => about),
    ['registry'],
  );
});

test('a partial check is silent about structures that were not asked for', async (t) => {
  const outDir = await temporaryFolder(t);
  await generate(sampleLayout(), { outDir });
  const part = sampleLayout();
  delete part.structs.rq;
  t.deepEqual(
    (await check(part, { outDir })).filter(({ about }) => about === 'struct').map(({ where }) => where),
    ['rq'],
  );
  const differences = await check(part, { outDir, partial: true });
  t.deepEqual(
    differences.filter(({ about }) => about === 'struct'),
    [],
  );
});

function reversed<T>(record: Record<string, T>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).reverse());
}
