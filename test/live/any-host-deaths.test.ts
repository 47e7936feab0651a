/**
 * What becomes of machines that are found by their processes when all of ours is killed: by the daemon over two of them, at
 * any moment, and in the middle of an edit that may not be left half done, under the freezer of the machine's control group.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { DomschedError } from '../../runtime/error.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { JournaledSurgeon, Journals } from '../../runtime/surgeon/journaled-surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { testGroups } from '../runtime/hypervisor/vmm/own-groups.ts';
import { behindOthers } from './behind-others.ts';
import { findProcess, PATIENCE_MS, runsOn } from './cycles.ts';
import { DaemonProcess, type LogLine } from './daemon-process.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { TOGGLE } from './toggle.ts';
import { until } from './until.ts';

const KILLS = Number(process.env.DOMSCHED_KILLS ?? 10);
const REPORT_EVERY = 50;
/** Longer than the policy takes to hold and release everybody, and than an edit takes. */
const SOME_TURNS_MS = 250;
const AN_EDIT_MS = 1;
const EDIT_AND_DIE = path.join(import.meta.dirname, 'edit-and-die.ts');

const programs = [
  { kind: 'burner', name: 'pacer' },
  { kind: 'burner', name: 'burner' },
  { kind: 'pipe', name: 'pipe' },
  { kind: 'threads', name: 'threads' },
] as const;
const subjects = ['burner', 'pipe', 'threads'];
const names = programs.map(({ name }) => name);

let directory: string;
let guests: readonly LiveGuest[] = [];
const idOf = (guest: LiveGuest) => `pid:${guest.process.pid}`;

test.before(async (t) => {
  t.timeout(600_000);
  directory = mkdtempSync(path.join(tmpdir(), 'domsched-deaths-'));
  const boot = (name: string, kernel: string) =>
    bootDebian({
      name,
      kernel,
      programs,
      shellNice: -10,
      cpus: 1,
      ram: 'memfd',
      extra: ['-name', `guest=${name},debug-threads=on`],
    });
  guests = await behindOthers([boot('one', 'debian-6.1-cloud'), boot('two', 'debian-6.12-cloud')]);
  t.is(guests.length, 2, 'both are up');
});

test.after.always(async () => {
  for (const guest of guests) await guest[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

/** With no daemon: one command lets everything go, and there is nothing for a second one to do. */
async function letAllGo(daemon: DaemonProcess): Promise<string> {
  const said = await daemon.letAllGo();
  await Promise.all(guests.map((guest) => runsOn(guest, ...names)));
  return said;
}

test.serial(
  'the daemon over two of them: a backup in one runs only while the other rests; killed, nobody is held',
  async (t) => {
    t.timeout(600_000);
    await using daemon = new DaemonProcess(directory, guests.map(idOf));
    await daemon.configure(
      [
        '[[policy]]\ntype = "idle-only"\nselect = [{ domain = "one", comm = "burner" }]',
        // Whoever else runs in the same machine is none of it.
        'ignore = [{ domain = "one" }]',
      ].join('\n'),
    );
    const [one, two] = guests as [LiveGuest, LiveGuest];
    daemon.start();
    await daemon.logs(({ msg, outcome }) => msg === 'hold' && outcome === 'held');
    const { burner } = await one.progress('burner');
    await runsOn(one, 'pacer');
    t.is((await one.progress('burner')).burner, burner, 'two is busy');
    await daemon.end('SIGKILL');
    await Promise.all([runsOn(one, 'pacer', 'pipe', 'threads'), runsOn(two, ...names)]);
    t.is((await one.progress('burner')).burner, burner, 'a hold outlives the daemon');
    t.regex(await letAllGo(daemon), /nothing is held/);
    t.deepEqual(daemon.remains(), { held: [], edits: [] });
    for (const guest of guests) guest.checkConsole();
  },
);

test.serial(
  'all of ours killed at once, at any moment: no machine stands still, and nobody stays held',
  async (t) => {
    t.timeout(3 * KILLS * 60_000 + 600_000);
    await using daemon = new DaemonProcess(directory, guests.map(idOf));
    await writeFile(path.join(directory, 'toggle.mjs'), TOGGLE);
    await daemon.configure(
      `[[policy]]\ntype = "module"\nmodule = "toggle.mjs"\nselect = [{ comm = ${JSON.stringify(subjects)} }]`,
      'interval = 0.02',
    );
    const busy = ({ msg }: LogLine) => msg === 'holding' || msg === 'released';
    const met = { starting: 0, editing: 0, held: 0, free: 0 };
    const began = performance.now();
    let kills = 1;
    const isEnough = () => kills > KILLS && met.editing > 0 && met.held > 0;
    for (; !isEnough() && kills <= 3 * KILLS; kills++) {
      const from = daemon.logged();
      const before = daemon.remains();
      const child = daemon.start();
      const dice = Math.random();
      if (dice < 0.1) await sleep(2_000 * Math.random());
      else {
        await until(
          'it is at work',
          () => child.exitCode !== null || daemon.log(from).some(busy),
          300_000,
          5,
        );
        t.is(child.exitCode, null, 'it did not end by itself');
        if (dice < 0.5) await sleep(SOME_TURNS_MS * Math.random());
        else if (daemon.seesEdit(2_000))
          for (const end = performance.now() + AN_EDIT_MS * Math.random(); performance.now() < end; );
      }
      // A command of ours is under way as well, now and then.
      const command = kills % 8 === 0 ? daemon.domsched('hold', 'two', 'pacer') : undefined;
      if (command !== undefined) await sleep(300 * Math.random());
      command?.kill('SIGKILL');
      await daemon.end('SIGKILL');
      await command?.catch(() => undefined);
      await Promise.all(
        guests.map((guest) => until(`${guest.name} is not left standing`, () => answers(guest))),
      );
      const { held, edits } = daemon.remains();
      if (edits.some((edit) => !before.edits.includes(edit))) met.editing += 1;
      else if (!daemon.log(from).some(({ msg }) => msg === 'attached')) met.starting += 1;
      else met[held.length > 0 ? 'held' : 'free'] += 1;
      if (kills % 20 === 0) t.regex(await letAllGo(daemon), /nothing is held/);
      if (kills % REPORT_EVERY === 0) console.log(`# killed ${kills} times: ${JSON.stringify(met)}`);
    }
    t.log(
      `${kills - 1} kills, ${Math.round((performance.now() - began) / (kills - 1))} ms each; they met ${JSON.stringify(met)}`,
    );
    t.regex(await letAllGo(daemon), /nothing is held/);
    t.deepEqual(daemon.remains().held, []);
    t.true(met.editing > 0 && met.held > 0);
    t.deepEqual(
      daemon.log().filter(({ level }) => level >= 50),
      [],
    );
    for (const guest of guests) guest.checkConsole();
  },
);

/** Its shell does, which is nobody's to hold. */
async function answers(guest: LiveGuest): Promise<boolean> {
  return (await guest.run('echo here')).includes('here');
}

test.serial(
  'killed in the middle of a splice, frozen: the machine stands until the next of ours takes the edit back',
  async (t) => {
    t.timeout(600_000);
    process.env.DOMSCHED_RUNTIME_DIR = directory;
    const groups = testGroups('machine');
    t.true(groups.length > 0, 'run the tests as root, where control groups can be made');
    await using stack = new AsyncDisposableStack();
    for (const group of groups) stack.use(group);
    const guest = guests[0]!;
    const pid = guest.process.pid!;
    for (const [index, group] of groups.entries()) {
      group.add(pid);
      for (const words of index === 0 ? [1, 7, 1_000] : [3]) {
        const args = [EDIT_AND_DIE, idOf(guest), 'burner', 'splice', String(words)];
        const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'] });
        const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
        t.deepEqual([code, signal], [null, 'SIGKILL']);
        await using host = await connect(idOf(guest));
        const spent = ticksOf(pid);
        await sleep(200);
        t.is(ticksOf(pid), spent, `after ${words} words it stands`);
        await using domain = await host.open(host.ids()[0]!);
        t.is(await domain.state(), 'paused');
        const surgeon = await JournaledSurgeon.open(domain, await knownKernels(), new Journals());
        t.is(surgeon.recovery, 'undone');
        t.is(await domain.state(), 'running');
        await runsOn(guest, ...names);
        const processes = await processesOf(surgeon.guest);
        const burner = findProcess(processes, 'burner');
        t.true(surgeon.surgeon.techniques.includes('splice'));
        t.regex(String(surgeon.surgeon.ways.refused.state), /registers/);
        const options = { techniques: ['splice'], limitMs: PATIENCE_MS } as const;
        const plan = await surgeon.surgeon.hold(burner, { ...options, dryRun: true });
        t.true(
          plan.means?.some((line) => line.includes(group.directory)),
          'it says by what it would be paused',
        );
        t.like(await surgeon.hold(burner, options), { outcome: 'held', techniques: ['splice'] });
        const still = await guest.progress('burner');
        await runsOn(guest, 'pacer');
        t.deepEqual(await guest.progress('burner'), still);
        await surgeon.release(burner, { limitMs: PATIENCE_MS });
        await runsOn(guest, ...names);
        surgeon.guest.detach();
      }
      await group[Symbol.asyncDispose]();
    }
    // Without a group to itself there is no such pause, and splicing is refused with that reason.
    await using host = await connect(idOf(guest));
    await using domain = await host.open(host.ids()[0]!);
    const surgeon = await JournaledSurgeon.open(domain, await knownKernels(), new Journals());
    const processes = await processesOf(surgeon.guest);
    const burner = findProcess(processes, 'burner');
    const plan = await surgeon.surgeon.hold(burner, { dryRun: true, limitMs: PATIENCE_MS });
    t.true(plan.means?.some((line) => line.startsWith('not by splice:')));
    const error = await t.throwsAsync<DomschedError>(surgeon.hold(burner, { techniques: ['splice'] }), {
      code: 'refused',
    });
    t.regex(error!.message, /control group/);
    surgeon.guest.detach();
    guest.checkConsole();
  },
);

/** CPU time of a machine's process. */
function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
