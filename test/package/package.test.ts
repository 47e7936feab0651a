/** The package as a stranger gets it: packed, installed with npm somewhere else, run, and used as a library. */
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { type ExecaError, execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { defaultTasks, knownKernel, SYNTHETIC_KERNELS, SyntheticGuest } from '../runtime/guest/synthetic.ts';
import { writeRaw } from '../runtime/guest/write-raw.ts';

const LIMIT_MS = 600_000;
const QUIET = ['--no-audit', '--no-fund', '--loglevel=error'];
let place: string;
let prefix: string;
let files: { path: string; size: number }[];
let size: number;

test.before(async (t) => {
  t.timeout(LIMIT_MS);
  place = await mkdtemp(path.join(tmpdir(), 'package-'));
  prefix = path.join(place, 'prefix');
  // What the package holds is what `make setup` has built: building again would change it under other tests.
  const packed = await execa('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', place], {
    cwd: projectDirectory,
  });
  const [description] = JSON.parse(packed.stdout);
  ({ files, size } = description);
  await mkdir(prefix);
  const { tarball, source } = await withDependencies(path.join(place, description.filename));
  t.log(`dependencies come from ${source}`);
  await execa('npm', ['install', '--global', '--offline', '--prefix', prefix, ...QUIET, tarball], {
    cwd: place,
  });
});
test.after.always(() => rm(place, { recursive: true, force: true }));

/**
 * The package with what it depends on inside, in the versions of the lock file: installing it asks the registry
 * nothing, whose answers may take minutes each. npm's own cache has them since `make setup`.
 */
async function withDependencies(packed: string): Promise<{ tarball: string; source: string }> {
  await execa('tar', ['-xzf', packed, '-C', place]);
  const folder = path.join(place, 'package');
  const lock = path.join(folder, 'package-lock.json');
  await cp(path.join(projectDirectory, 'package-lock.json'), lock);
  const install = ['ci', '--omit=dev', ...QUIET];
  let source = "npm's cache";
  try {
    await execa('npm', [...install, '--offline'], { cwd: folder });
  } catch (error) {
    const reason = /^npm error (request .*)$/m.exec((error as ExecaError<object>).stderr as string)?.[1];
    // Emptied since, or of somebody else: any other failure comes again and is told.
    source = `the registry, because npm's cache lacks some: ${reason ?? 'see the next error'}`;
    await execa('npm', [...install, '--prefer-offline'], { cwd: folder });
  }
  await rm(lock);
  const manifest = path.join(folder, 'package.json');
  const content = JSON.parse(await readFile(manifest, 'utf8'));
  await writeFile(manifest, JSON.stringify({ ...content, bundleDependencies: true }));
  const tarball = path.join(place, 'with-dependencies.tar');
  await execa('tar', ['-cf', tarball, '-C', place, 'package']);
  return { tarball, source };
}

const installed = (file: string) => path.join(prefix, 'lib/node_modules/domsched', file);

/** Runs the installed program from its link, with nothing of the checkout in reach. */
function domsched(...args: string[]) {
  const env = {
    PATH: `${path.join(prefix, 'bin')}:${path.dirname(process.execPath)}:/usr/bin:/bin`,
    HOME: place,
    DOMSCHED_RUNTIME_DIR: path.join(place, 'run'),
  };
  return execa('domsched', args, { cwd: place, env, extendEnv: false, reject: false, timeout: LIMIT_MS });
}

test('it holds what it needs and nothing else', async (t) => {
  const names = files.map(({ path: name }) => name);
  for (const needed of [
    'LICENSE',
    'dist/bundle/program.cjs',
    'dist/sbom.cdx.json',
    'dist/wasm/libdwarf.wasm',
    'dist/wasm/LGPL-2.1.txt',
    'dist/wasm/COPYING.libdwarf',
    'dist/wasm/build.sh',
    'dist/generated/registry.js',
    'dist/generated/2.6.16.33/index.d.ts',
    'dist/runtime/web/page/index.html',
    'dist/runtime/web/page/main.js',
    'dist/runtime/web/page/style.css',
    'dist/runtime/index.d.ts',
    'dist/man/domsched.8',
    'examples/processes.js',
    'examples/monitoring/alerts.yml',
    'examples/monitoring/board.json',
    'runtime/daemon/domsched.service',
    'runtime/daemon/domsched.toml',
  ]) {
    t.true(names.includes(needed), needed);
  }
  t.deepEqual(
    names.filter((name) => /^test\/|^kernels\/|^generated\/|tsbuildinfo|^dist\/kernels|\.cache/.test(name)),
    [],
  );
  t.true(size < 2 * 2 ** 20, `${size} bytes`);
  t.log(`${Math.round(size / 1024)} KiB, ${files.length} files`);
  const { version } = JSON.parse(await readFile(installed('package.json'), 'utf8'));
  t.is((await domsched('--version')).stdout, version);
});

test('the program works: help, layouts, native bindings, WebAssembly', async (t) => {
  const help = await domsched('--help');
  t.is(help.exitCode, 0, help.stderr);
  t.regex(help.stdout, /^ {2}ps \[options\] \[domain\]/m);
  const layouts = await domsched('layouts', '--json');
  t.is(layouts.exitCode, 0, layouts.stderr);
  t.true(JSON.parse(layouts.stdout).length > 0);
  const doctor = await domsched('doctor', '--json');
  const findings = JSON.parse(doctor.stdout) as { check: string; status: string }[];
  t.is(findings.find(({ check }) => check === 'reading process memory')?.status, 'ok');
  // The program's own C library carries no structures: DWARF is read, and found to have none of a kernel.
  const extract = await domsched('extract', process.execPath);
  t.is(extract.exitCode, 1);
  t.notRegex(extract.stderr, /internal error/);
});

test('the manual page and the page of the daemon are where they belong', async (t) => {
  const manual = await readFile(path.join(prefix, 'share/man/man8/domsched.8'), 'utf8');
  t.is(manual, `${(await domsched('manual')).stdout}\n`);
  const page = await execa(process.execPath, ['--input-type=module', '-e', PAGE], { cwd: place });
  t.is(page.stdout, '200 text/html; charset=utf-8');
});

const PAGE = `
import { pathToFileURL } from 'node:url';
const at = (file) => import(pathToFileURL(process.cwd() + '/prefix/lib/node_modules/domsched/dist/runtime/' + file));
const { Metrics } = await at('metrics/metrics.js');
const { WebServer } = await at('web/server.js');
const web = await WebServer.open({ listen: { host: '127.0.0.1', port: 0 }, token: 'a-token-of-this-test', metrics: new Metrics() });
const response = await fetch(web.url, { headers: { authorization: 'Bearer a-token-of-this-test' } });
console.log(response.status, response.headers.get('content-type'));
await response.text();
await web.close();
`;

test('as a library: the example lists the processes of a guest, and its types hold', async (t) => {
  t.timeout(LIMIT_MS);
  const folder = path.join(place, 'user');
  await mkdir(path.join(folder, 'node_modules'), { recursive: true });
  await execa('ln', ['-s', installed(''), path.join(folder, 'node_modules/domsched')]);
  await cp(installed('examples/processes.js'), path.join(folder, 'processes.js'));
  const lines = (await readFile(path.join(folder, 'processes.js'), 'utf8')).trimEnd().split('\n');
  t.true(lines.length <= 25, `${lines.length} lines`);
  const guest = await SyntheticGuest.make({ kernel: SYNTHETIC_KERNELS[1]! });
  const dump = path.join(folder, 'vm');
  await writeRaw(guest, dump);
  const { stdout } = await execa(process.execPath, ['processes.js', `dump:${dump}`], { cwd: folder });
  t.deepEqual(
    stdout.split('\n').map((line) => line.split('\t').slice(0, 3)),
    defaultTasks()
      .filter(({ pid, tgid = pid }) => pid === tgid)
      .map(({ pid, comm }) => ['vm', String(pid), comm]),
  );

  await writeFile(path.join(folder, 'package.json'), '{"type":"module"}');
  await writeFile(path.join(folder, 'policy.ts'), POLICY);
  const options = ['--noEmit', '--strict', '--target', 'es2024', '--module', 'nodenext', '--types', 'node'];
  const roots = path.join(projectDirectory, 'node_modules/@types');
  const libraries = ['--lib', 'es2024,esnext.disposable', '--skipLibCheck', 'false'];
  const tsc = path.join(projectDirectory, 'node_modules/typescript/bin/tsc');
  const compile = (file: string) =>
    execa(process.execPath, [tsc, ...options, ...libraries, '--typeRoots', roots, file], {
      cwd: folder,
      reject: false,
    });
  const right = await compile('policy.ts');
  t.is(right.exitCode, 0, right.stdout);
  await writeFile(path.join(folder, 'wrong.ts'), POLICY.replace("'hold'", "'freeze'"));
  t.regex((await compile('wrong.ts')).stdout, /^wrong\.ts.* error TS2322/);
});

test('as a library: a kernel’s layout is imported by its release, with types', async (t) => {
  t.timeout(LIMIT_MS);
  const folder = path.join(place, 'layout');
  await mkdir(path.join(folder, 'node_modules'), { recursive: true });
  await execa('ln', ['-s', installed(''), path.join(folder, 'node_modules/domsched')]);
  await writeFile(path.join(folder, 'package.json'), '{"type":"module"}');
  const kernel = SYNTHETIC_KERNELS[0]!;
  const program = LAYOUT.replace('RELEASE', kernel);
  await writeFile(path.join(folder, 'right.ts'), program);
  await writeFile(path.join(folder, 'wrong.ts'), program.replace('static_prio', 'static_priority'));
  const tsc = path.join(projectDirectory, 'node_modules/typescript/bin/tsc');
  const options = [
    '--strict',
    '--target',
    'es2024',
    '--module',
    'nodenext',
    '--types',
    'node',
    '--typeRoots',
  ];
  const roots = path.join(projectDirectory, 'node_modules/@types');
  const compiled = await execa(process.execPath, [tsc, ...options, roots, 'right.ts', 'wrong.ts'], {
    cwd: folder,
    reject: false,
  });
  t.regex(
    compiled.stdout,
    /^wrong\.ts\(\d+,\d+\): error TS\d+: Property 'static_priority' does not exist[^\n]*$/,
  );
  const { stdout } = await execa(process.execPath, ['right.js'], { cwd: folder });
  const layout = await knownKernel(kernel).load();
  const { offset, size } = layout.field('task_struct', 'static_prio');
  t.is(stdout, `${offset} ${size} 20`);
});

const LAYOUT = `
import { reader } from 'domsched';
import { layout } from 'domsched/layouts/RELEASE';

const member = layout.task_struct.static_prio;
const task = new DataView(new ArrayBuffer(layout.task_struct.$size));
task.setInt32(member.offset, 140, true);
const nice: number = reader(member)(task) - 120;
const exact: 4 = member.size;
console.log(member.offset, exact, nice);
`;

const POLICY = `
import { Guest, type Action, type Policy, type Process, knownKernels } from 'domsched';
import { FakeHost } from 'domsched/testing';

const night: Policy<number> = (world, memory = 0) => {
  const actions: Action[] = world.domains.flatMap(({ processes }) =>
    processes.map(({ key }) => ({ type: 'hold', process: key, reason: 'night' }) as const),
  );
  return { actions, memory: memory + 1 };
};
export default () => night;

export async function names(): Promise<string[]> {
  await using host = new FakeHost();
  const [listing] = await host.list();
  await using domain = await host.open(listing!.identity.id);
  const guest = await Guest.attach(domain, await knownKernels());
  const { processes } = await guest.take();
  return processes.map(({ comm }: Process) => comm);
}
`;
