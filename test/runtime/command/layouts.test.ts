import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { generate } from '../../../codegen/index.ts';
import { snapshot, temporaryFolder } from '../../codegen/folder.ts';
import { sampleLayout } from '../../codegen/sample.ts';

const PROGRAM = resolve(import.meta.dirname, '../../../domsched.ts');

/** Runs the program with a user store that holds the sample. */
async function withStore(t: import('ava').ExecutionContext) {
  const data = await temporaryFolder(t);
  const layout = sampleLayout();
  await generate(layout, { outDir: join(data, 'domsched', 'layouts') });
  return (...args: string[]) =>
    execa(process.execPath, [PROGRAM, 'layouts', ...args], {
      env: { XDG_DATA_HOME: data },
      cwd: data,
      reject: false,
    });
}

test('the list names kernel, schedulers, build-id, engine and source', async (t) => {
  const run = await withStore(t);
  const { stdout } = await run();
  const row = stdout.split('\n').find((line) => line.includes('6.1.0-test'));
  for (const fact of ['cfs', '0123456789abcdef', 'dwarf 5', 'vmlinux-6.1.0-test'])
    t.true(row?.includes(fact), fact);
  const list = JSON.parse((await run('--json')).stdout) as {
    folder: string;
    schedulers: string[];
    buildId: string;
  }[];
  const found = list.find(({ folder }) => folder === '6.1.0-test');
  t.deepEqual([found?.schedulers, found?.buildId], [['cfs'], sampleLayout().kernel.buildId]);
});

test('a kernel is named by release or by the beginning of its build-id, and shows its structures', async (t) => {
  const run = await withStore(t);
  for (const name of ['6.1.0-test', '0123456789']) {
    const structs = JSON.parse((await run(name, '--json')).stdout) as { struct: string; size: number }[];
    t.deepEqual(
      structs.map(({ struct, size }) => [struct, size]),
      [
        ['cfs_rq', 24],
        ['rq', 128],
      ],
    );
  }
  t.regex((await run('6.1.0-test')).stdout, /rq\s+│\s+128 /);
});

test('a kernel shows how processes of its guests can be held, and why not otherwise', async (t) => {
  const run = await withStore(t);
  const { stdout } = await run('6.1.0-test');
  t.regex(stdout, /can be held by: nothing\.\ncannot be held: it has no freezer trap/);
  const known = JSON.parse((await run('--json')).stdout) as { folder: string; schedulers: string[] }[];
  const [eevdf, o1] = ['eevdf', 'o1'].map(
    (name) => known.find(({ schedulers }) => schedulers.includes(name))!,
  );
  t.regex((await run(eevdf!.folder)).stdout, /can be held by: park, splice, state\.\n.*domsched domains/);
  t.regex((await run(o1!.folder)).stdout, /can be held by: splice, state\.\nnot by park: /);
});

test('a structure is shown as text, JSON and a picture', async (t) => {
  const run = await withStore(t);
  const text = (await run('6.1.0-test', 'rq')).stdout;
  t.regex(text, /nr_running;\s+\/\*\s+0\s+4 \*\//);
  t.notRegex(text, /\x1b/);
  const details = JSON.parse((await run('6.1.0-test', 'rq', '--json')).stdout) as {
    size: number;
    holes: { role: string; offset: number; size: number }[];
    members: { name: string; offset: number }[];
  };
  t.is(details.members.find(({ name }) => name === 'high')?.offset, 44);
  // The last member's bits end in byte 116.
  t.deepEqual(details.holes, [
    { role: 'hole', offset: 7, size: 1 },
    { role: 'padding', offset: 117, size: 11 },
  ]);
  const folder = await temporaryFolder(t);
  const { exitCode, stdout } = await run('6.1.0-test', 'rq', '--svg', join(folder, 'rq.svg'));
  t.is(exitCode, 0);
  t.is(stdout, '');
  t.regex(
    await readFile(join(folder, 'rq.svg'), 'utf8'),
    /^<svg [\s\S]*unsigned int nr_running[\s\S]*<\/svg>\n$/,
  );
});

test('what is not known is refused in one line that says what to do', async (t) => {
  const run = await withStore(t);
  const folder = await temporaryFolder(t);
  const cases: [string[], number, RegExp][] = [
    [['5.0'], 1, /No layout is known as 5\.0\..*6\.1\.0-test.*domsched extract.*\[layout-unknown\]/],
    [
      ['6.1.0-test', 'prio_array'],
      1,
      /no structure prio_array.*--struct prio_array.*\[layout-absent-member\]/,
    ],
    [['6.1.0-test', '--svg', join(folder, 'x.svg')], 2, /--svg.*\[usage\]/],
    [['6.1.0-test', 'rq', '--svg', join(folder, 'none', 'x.svg')], 2, /Cannot write.*\[usage\]/],
  ];
  for (const [args, code, message] of cases) {
    const { exitCode, stderr } = await run(...args);
    t.is(exitCode, code);
    t.regex(stderr, message);
    t.is(stderr.trim().split('\n').length, 1, stderr);
  }
  t.deepEqual(await snapshot(folder), {});
});
