/**
 * `make demo`: the main job on real kernels, command by command. Boots two guests with different kernels, reads the
 * layouts of both from their memory, draws a run queue, and runs the daemon over both: the backup in one is held while the
 * service in the other works. At the end a picture of who ran when.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { styleText } from 'node:util';
import { execa } from 'execa';
import { projectDirectory } from '../kernels/paths.ts';
import { suiteKernels } from '../kernels/suites.ts';
import { bootImage } from './live/guest.ts';
import { until } from './live/until.ts';

const program = path.join(projectDirectory, 'dist/domsched.js');
const pictures = path.join(projectDirectory, '.cache', 'demo');
/** Of its own: a daemon that runs on this machine is left alone, and nothing is known from before. */
const env = {
  DOMSCHED_RUNTIME_DIR: path.join(pictures, 'run'),
  DOMSCHED_CACHE_DIR: path.join(pictures, 'cache'),
  XDG_DATA_HOME: path.join(pictures, 'data'),
};

function say(text: string): void {
  const line = process.stdout.isTTY ? styleText('bold', text) : text;
  process.stdout.write(`\n${line}\n`);
}

/** Runs one command of the program as a user would, and shows what was typed. */
async function domsched(...args: string[]): Promise<void> {
  const shown = args.map((arg) =>
    path.relative(projectDirectory, arg).startsWith('.cache') ? path.relative(projectDirectory, arg) : arg,
  );
  process.stdout.write(`$ npm run -s domsched -- ${shown.join(' ')}\n`);
  await execa(process.execPath, [program, ...args], {
    cwd: projectDirectory,
    stdio: 'inherit',
    env,
  });
}

/** What the two processes count by their own word, a while apart. */
async function showProgress(when: string): Promise<void> {
  const count = async () => [await web.progress('server'), await batch.progress('backup')] as const;
  const [server, backup] = await count();
  await sleep(3_000);
  const [serverLater, backupLater] = await count();
  const grown = (before: number, after: number) => (after > before ? `+${after - before}` : 'stands still');
  process.stdout.write(
    `  ${when}: server ${grown(server.server!, serverLater.server!)}, backup ${grown(backup.backup!, backupLater.backup!)}\n`,
  );
}

/** Waits until the daemon has the backup held, or let go. */
async function backupIs(held: boolean): Promise<void> {
  await until(
    `the backup is ${held ? 'held' : 'let go'}`,
    async (swallow) => {
      const look = [program, 'ps', 'batch', '--json'];
      const { stdout, stderr, exitCode } = await execa(process.execPath, look, { env, reject: false });
      // The daemon is on its way.
      if (exitCode !== 0) return swallow(stderr);
      const rows = JSON.parse(stdout) as { comm: string; state: string }[];
      const state = rows.find(({ comm }) => comm === 'backup')?.state;
      return (state === 'held') === held;
    },
    60_000,
    250,
  );
}

const kernelOf = (suite: string) => {
  const found = suiteKernels().find((kernel) => kernel.suite === suite && /-cloud-/.test(kernel.release));
  if (found === undefined) throw new Error(`no kernel of ${suite}: make demo fetches one`);
  return found;
};
const [service, other] = [kernelOf('bookworm'), kernelOf('trixie')];
const picture = path.join(pictures, 'rq.svg');
await rm(pictures, { recursive: true, force: true });
await mkdir(pictures, { recursive: true });

say(`1. Two guests: a service on Linux ${service.release}, a backup on ${other.release}`);
const boot = async (name: string, vmlinuz: string, program: 'server' | 'backup') =>
  bootImage(vmlinuz, { name, cpus: 1, memory: 256, programs: [{ kind: 'burner', name: program }] });
const [first, second] = await Promise.all([
  boot('web', service.vmlinuz, 'server'),
  boot('batch', other.vmlinuz, 'backup'),
]);
await using web = first;
await using batch = second;

say('2. Nobody extracted these kernels: what they say of themselves, in their memory');
await domsched('domains', '--connect', web.connection, '--connect', batch.connection);
await domsched('layouts');
await domsched('layouts', service.release, 'rq', '--svg', picture);

say('3. The daemon: the backup runs only while nothing else does, in any guest');
const config = path.join(pictures, 'domsched.toml');
const trace = path.join(pictures, 'trace');
const log = path.join(pictures, 'log');
await writeFile(
  config,
  `interval = 0.25
connect = ${JSON.stringify([web.connection, batch.connection])}

[log]
file = ${JSON.stringify(log)}

[trace]
file = ${JSON.stringify(trace)}

[[policy]]
type = "idle-only"
name = "backups"
select = [{ comm = "backup" }]
`,
);
await domsched('check-config', config);
process.stdout.write(`$ npm run -s domsched -- run -c ${path.relative(projectDirectory, config)} &\n`);
const daemon = spawn(process.execPath, [program, 'run', '-c', config], {
  cwd: projectDirectory,
  env: { ...process.env, ...env },
  stdio: ['ignore', 'ignore', 'inherit'],
});
const ended = once(daemon, 'exit');
process.on('exit', () => daemon.kill());
await backupIs(true);
await domsched('domains');
await showProgress('the service works');
await web.run('killall -STOP server || killall -STOP workload');
await backupIs(false);
await showProgress('the service rests');
await web.run('killall -CONT server || killall -CONT workload');
await backupIs(true);
await showProgress('the service works again');
daemon.kill('SIGTERM');
await ended;
await showProgress('the daemon was told to end');

say('4. Who ran when, and what was held');
const timeline = path.join(pictures, 'timeline.html');
await domsched('report', trace, '-o', timeline);

process.stdout.write(`\nThe picture of the run queue: ${pathToFileURL(picture)}\n`);
say(`The timeline: ${pathToFileURL(timeline)}`);
