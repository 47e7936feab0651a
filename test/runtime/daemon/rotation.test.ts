/** The daemon's files, rotated as logrotate does it: moved, then SIGHUP. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { projectDirectory } from '../../../kernels/paths.ts';
import { until } from '../../live/until.ts';
import { SYNTHETIC_KERNELS, SyntheticGuest } from '../guest/synthetic.ts';
import { writeRaw } from '../guest/write-raw.ts';

test('log and trace that were moved are made again at SIGHUP, also when the configuration is broken by then', async (t) => {
  const folder = await folderOf(t);
  const trace = path.join(folder, 'trace');
  const { daemon, ended, config, log, said } = await start(
    t,
    folder,
    `[trace]\nfile = ${JSON.stringify(trace)}`,
  );
  const isThere = async (file: string) => ((await stat(file).catch(() => undefined))?.size ?? 0) > 0;
  await until('the daemon runs', () => said('"running"'));

  for (const file of [log, trace]) await rename(file, `${file}.moved`);
  daemon.kill('SIGHUP');
  await until('it says so in the new log', () => said('"configuration read again"'));
  await until('the trace is there again', () => isThere(trace));
  t.false((await readFile(`${log}.moved`, 'utf8')).includes('configuration read again'));

  await writeFile(config, 'nonsense');
  for (const file of [log, trace]) await rm(file);
  daemon.kill('SIGHUP');
  await until('it complains in the new log', () => said('"the configuration stays as it was"'));
  await until('the trace is there again', () => isThere(trace));

  daemon.kill('SIGTERM');
  t.deepEqual(await ended, [0, null]);
  t.true(await said('"everything was put back, and no guest holds anybody"'));
});

test('SIGHUP while the daemon starts does not end it, and is not forgotten', async (t) => {
  const folder = await folderOf(t);
  // A policy of the user's that takes its time to load, and says that it does.
  const loading = path.join(folder, 'loading');
  await writeFile(
    path.join(folder, 'policy.js'),
    `import { writeFileSync } from 'node:fs';
writeFileSync(${JSON.stringify(loading)}, '');
await new Promise((resolve) => setTimeout(resolve, 500));
export default () => () => [];
`,
  );
  const { daemon, ended, said } = await start(
    t,
    folder,
    '[[policy]]\ntype = "module"\nmodule = "./policy.js"\nselect = [{ comm = "nobody" }]',
  );
  await until('it loads its policies', () => existsSync(loading));
  daemon.kill('SIGHUP');
  await until('the daemon runs', () => said('"running"'));
  await until('it reads them again', () => said('"configuration read again"'));
  daemon.kill('SIGTERM');
  t.deepEqual(await ended, [0, null]);
});

async function folderOf(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'rotation-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** A daemon in a process of its own, which looks at a dump and writes a log. @param more of its configuration */
async function start(t: ExecutionContext, folder: string, more: string) {
  const [dump, config, log] = ['vm', 'config', 'log'].map((name) => path.join(folder, name)) as [
    string,
    string,
    string,
  ];
  await writeRaw(await SyntheticGuest.make({ kernel: SYNTHETIC_KERNELS[1]! }), dump);
  const toml = `interval = 0.1
connect = ${JSON.stringify([`dump:${dump}`])}
[log]
file = ${JSON.stringify(log)}
${more}
`;
  await writeFile(config, toml);
  const daemon = spawn(process.execPath, [path.join(projectDirectory, 'domsched.ts'), 'run', '-c', config], {
    env: { ...process.env, DOMSCHED_RUNTIME_DIR: path.join(folder, 'run') },
    stdio: 'ignore',
  });
  t.teardown(() => daemon.kill('SIGKILL'));
  const said = async (message: string) => (await readFile(log, 'utf8').catch(() => '')).includes(message);
  return { daemon, ended: once(daemon, 'exit'), config, log, said };
}
