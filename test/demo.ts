/**
 * `make demo`: the main job on real kernels, command by command. Takes the layout of a Debian kernel, draws its run
 * queue, boots a guest with that kernel and one with O(1) run queues, lists the processes of both, and stops a process
 * of each for a while.
 */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { styleText } from 'node:util';
import { execa } from 'execa';
import { requireKernel } from '../kernels/cache.ts';
import { projectDirectory } from '../kernels/paths.ts';
import { bootDebian } from './live/guest.ts';
import { bootO1, kernelFile, numbers } from './live/o1.ts';

const pictures = path.join(projectDirectory, '.cache', 'demo');

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
  await execa(process.execPath, [path.join(projectDirectory, 'dist/domsched.js'), ...args], {
    cwd: projectDirectory,
    stdio: 'inherit',
  });
}

/** What the two processes have counted so far, by their own word. */
async function counts(): Promise<string> {
  const line = batch.lines.findLast((text) => text.startsWith('pi1 '))!;
  const { server } = await web.progress('server');
  return `${numbers(line).progress}, ${server}`;
}

const debian = requireKernel('debian-6.1-cloud');
const picture = path.join(pictures, 'rq.svg');
await mkdir(pictures, { recursive: true });

say(`1. The layout of Debian's kernel ${debian.release}, from its debug information`);
await domsched('extract', debian.vmlinux);
await domsched('layouts', debian.release, 'rq', '--svg', picture);

say('2. The layout of a kernel with the O(1) scheduler, like the one of Linux 2.6.16');
await domsched('extract', kernelFile('base'));

say('3. Two guests, each with one of these kernels');
await using web = await bootDebian({
  name: 'web',
  cpus: 2,
  programs: [
    { kind: 'burner', name: 'server' },
    { kind: 'sleeper', name: 'timer' },
  ],
});
await using batch = await bootO1({
  name: 'batch',
  cpus: 2,
  commandLine: 'report=100 run=pi1,pi2:5,sleeper',
  extraArguments: ['-qmp', `unix:${path.join(web.directory, 'batch.sock')},server=on,wait=off`],
});
await batch.waitFor(/^pi2 /);
const places = [
  '--connect',
  web.connection,
  '--connect',
  `qemu:unix:${path.join(web.directory, 'batch.sock')}`,
];
await domsched('domains', ...places);
await domsched('ps', ...places);

say(
  "4. A process of each is stopped from outside, and let go: by its run queue, and by its kernel's freezer trap",
);
await domsched('hold', 'batch', 'pi1', '--dry-run', ...places);
await domsched('hold', 'batch', 'pi1', ...places);
await domsched('hold', 'web', 'server', ...places);
await sleep(200);
const before = await counts();
await sleep(1000);
const after = await counts();
process.stdout.write(`  counted by pi1 and server: ${before}; a second later: ${after}\n`);
await domsched('release', 'batch', 'pi1', ...places);
await domsched('release', 'web', 'server', ...places);
await sleep(1000);
process.stdout.write(`  and a second after their release: ${await counts()}\n`);

say(`The picture of the run queue: ${pathToFileURL(picture)}`);
