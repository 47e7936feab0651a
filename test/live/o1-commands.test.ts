/** `domsched hold`, `ps`, `renice` and `release` on a live O(1) guest, as a user types them. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { execa } from 'execa';
import { projectDirectory } from '../../kernels/paths.ts';
import { bootO1, kernelFile, numbers, usableAccelerator } from './o1.ts';

let place: string;

test.before(async (t) => {
  place = await mkdtemp(path.join(tmpdir(), 'o1-commands-'));
  t.log(`guests run on ${await usableAccelerator()}`);
});
test.after.always(() => rm(place, { recursive: true, force: true }));

async function domsched(...args: string[]) {
  // Its own runtime directory: `release --all` takes what is written down there, of whatever machine.
  const env = { XDG_DATA_HOME: place, DOMSCHED_RUNTIME_DIR: path.join(place, 'run') };
  return execa(process.execPath, ['domsched.ts', ...args], { cwd: projectDirectory, env, reject: false });
}

test('a process is held, shown as held, reniced and released; what cannot be done is refused', async (t) => {
  t.timeout(900_000);
  const socket = path.join(place, 'batch.sock');
  const connect = ['--connect', `qemu:unix:${socket}`];
  await using guest = await bootO1({
    name: 'batch',
    commandLine: 'report=20 run=pi1,pi2',
    extraArguments: ['-qmp', `unix:${socket},server=on,wait=off`],
  });
  await guest.waitFor(/^pi1 /);
  // The guest that was just built, whatever is committed.
  const out = path.join(place, 'domsched', 'layouts');
  t.is((await domsched('extract', kernelFile('base'), '--out', out)).exitCode, 0);

  const dry = await domsched('hold', 'batch', 'pi1', '--dry-run', ...connect);
  t.is(dry.exitCode, 0, dry.stderr);
  t.regex(dry.stdout, /planned by (splice|state); nothing was written\n {2}\S/);

  const held = await domsched('hold', 'batch', 'pi1', '--json', ...connect);
  t.is(held.exitCode, 0, held.stderr);
  const [operation] = JSON.parse(held.stdout);
  t.like(operation, { domain: 'batch', outcome: 'held' });
  t.deepEqual(Object.keys(operation), [
    'domain',
    'pid',
    'technique',
    'outcome',
    'attempts',
    'pausedUs',
    'writes',
  ]);

  const progress = () => numbers(guest.lines.findLast((line) => line.startsWith('pi1 '))!).progress!;
  await sleep(200);
  const before = progress();
  const states = async () => {
    const { stdout } = await domsched('ps', 'batch', '--json', ...connect);
    const rows = JSON.parse(stdout) as { comm: string; state: string; nice: number }[];
    return rows.find(({ comm }) => comm === 'pi1')!;
  };
  t.like(await states(), { state: 'held', nice: 0 });
  // A refusal leaves the record of what is held where it is.
  t.is((await domsched('hold', 'batch', 'pi1', '--technique', 'park', ...connect)).exitCode, 3);
  t.like(await states(), { state: 'held', nice: 0 });
  t.is((await domsched('renice', 'batch', 'pi1', '7', ...connect)).exitCode, 0);
  t.like(await states(), { state: 'held', nice: 7 });
  t.is(progress(), before, 'it stood still all the time');

  const released = await domsched('release', 'batch', 'pi1', ...connect);
  t.is(released.exitCode, 0, released.stderr);
  for (let tries = 0; progress() === before && tries < 1500; tries++) await sleep(20);
  t.true(progress() > before);
  t.not((await states()).state, 'held');

  for (const [args, code, message] of [
    [['hold', 'batch', '1'], 3, /nothing was changed/],
    [['hold', 'batch', 'nobody'], 1, /no process nobody/],
    [['hold', 'elsewhere', 'pi1'], 1, /no domain elsewhere/],
    [['renice', 'batch', 'pi1', '20'], 2, /not in -20\.\.19/],
    [['hold', 'batch', 'pi1', '--technique', 'magic'], 2, /technique/],
    [['release'], 2, /--all/],
  ] as const) {
    const refused = await domsched(...args, ...connect);
    t.is(refused.exitCode, code, refused.stderr);
    t.regex(refused.stderr, message);
    t.is(refused.stdout, '');
    // What it advises instead, if that is a command.
    const advised = /; domsched ((?:domains|ps \S+)) lists|, or (--all)/.exec(refused.stderr);
    if (!advised) continue;
    const words = advised[1] === undefined ? ['release', '--all'] : advised[1].split(' ');
    const followed = await domsched(...words, ...connect);
    t.is(followed.exitCode, 0, followed.stderr);
    t.regex(followed.stdout, /batch|nothing is held/);
  }
  t.deepEqual(
    guest.lines.filter((line) => /BUG|exception/.test(line)),
    [],
  );
});
