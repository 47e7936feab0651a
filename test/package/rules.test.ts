import { globSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';

const DECLARATION = /^(?:export )?(?:declare )?(?:abstract )?(?:interface|type|class) (\w+)[ <]/gm;

const SOURCES = ['*.ts', '{codegen,extractor,kernels,runtime,test}/**/*.ts'];

test('a type’s name means one thing: no two files declare it', (t) => {
  const places = new Map<string, string[]>();
  for (const file of globSync(SOURCES, { cwd: projectDirectory })) {
    const text = readFileSync(path.join(projectDirectory, file), 'utf8');
    for (const [, name] of text.matchAll(DECLARATION))
      places.set(name!, [...(places.get(name!) ?? []), file]);
  }
  t.true(places.has('DomschedError') && places.has('Tick'), 'declarations are found');
  t.deepEqual(
    [...places].filter(([, files]) => files.length > 1),
    [],
  );
});

test('make check: a width that somebody typed is found where members are read, and is the host’s business elsewhere', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'domsched-widths-'));
  t.teardown(() => rm(folder, { recursive: true }));
  for (const file of ['biome.json', 'member-widths.grit'])
    await copyFile(path.join(projectDirectory, file), path.join(folder, file));
  for (const room of ['guest', 'technique/o1', 'hypervisor']) {
    await mkdir(path.join(folder, 'runtime', room), { recursive: true });
    const text = 'export const read = (view: DataView) => view.getUint32(4, true);\n';
    await writeFile(path.join(folder, 'runtime', room, 'any.ts'), text);
  }
  const command = ['lint', '--vcs-enabled=false', '--config-path=.', 'runtime'];
  const { stderr } = await execa('biome', command, {
    cwd: folder,
    preferLocal: true,
    localDir: projectDirectory,
    reject: false,
  });
  const found = [...stderr.matchAll(/(\S+)\/any\.ts:1:\d+ plugin/g)].map(([, room]) => room);
  t.deepEqual(found.toSorted(), ['runtime/guest', 'runtime/technique/o1'], stderr);
});
