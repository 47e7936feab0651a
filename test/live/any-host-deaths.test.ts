/**
 * What becomes of machines that are found by their processes when we are killed: the daemon over two of them, and whoever is
 * in the middle of an edit that may not be left half done, under the freezer of the machine's control group.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { constants, setPriority, tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import type { DomschedError } from '../../runtime/error.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { JournaledSurgeon, Journals } from '../../runtime/surgeon/journaled-surgeon.ts';
import { testGroups } from '../runtime/hypervisor/vmm/own-groups.ts';
import { findProcess, PATIENCE_MS } from './cycles.ts';
import { DaemonProcess } from './daemon-process.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { until } from './until.ts';

const EDIT_AND_DIE = path.join(import.meta.dirname, 'edit-and-die.ts');

const programs = [
  { kind: 'burner', name: 'pacer' },
  { kind: 'burner', name: 'burner' },
  { kind: 'pipe', name: 'pipe' },
  { kind: 'threads', name: 'threads' },
] as const;
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
  const booted = await Promise.allSettled([
    boot('one', 'debian-6.1-cloud'),
    boot('two', 'debian-6.12-cloud'),
  ]);
  guests = booted.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  t.is(guests.length, 2, 'both are up');
  // Most of a turn is the start of the daemon.
  for (const guest of guests) {
    for (const thread of readdirSync(`/proc/${guest.process.pid}/task`))
      setPriority(Number(thread), constants.priority.PRIORITY_LOW);
  }
});

test.after.always(async () => {
  for (const guest of guests) await guest[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

async function goOn(guest: LiveGuest, ...which: readonly string[]): Promise<void> {
  const before = await guest.progress(...which);
  await until(`${guest.name}: ${which} go on`, async () => {
    const now = await guest.progress(...which);
    return which.every((name) => now[name]! > before[name]!);
  });
}

/** With no daemon: one command lets everything go, and there is nothing for a second one to do. */
async function letAllGo(daemon: DaemonProcess): Promise<string> {
  const connections = daemon.connections.flatMap((connection) => ['--connect', connection]);
  await daemon.domsched('release', '--all', '--timeout', '60', ...connections);
  const { stdout } = await daemon.domsched('release', '--all', ...connections);
  await Promise.all(guests.map((guest) => goOn(guest, ...names)));
  return stdout;
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
    await goOn(one, 'pacer');
    t.is((await one.progress('burner')).burner, burner, 'two is busy');
    await daemon.end('SIGKILL');
    await Promise.all([goOn(one, 'pacer', 'pipe', 'threads'), goOn(two, ...names)]);
    t.is((await one.progress('burner')).burner, burner, 'a hold outlives the daemon');
    t.regex(await letAllGo(daemon), /nothing is held/);
    t.deepEqual(daemon.remains(), { held: [], edits: [] });
    for (const guest of guests) guest.checkConsole();
  },
);

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
        await goOn(guest, ...names);
        const { processes } = await surgeon.guest.take();
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
        await goOn(guest, 'pacer');
        t.deepEqual(await guest.progress('burner'), still);
        await surgeon.release(burner, { limitMs: PATIENCE_MS });
        await goOn(guest, ...names);
        surgeon.guest.detach();
      }
      await group[Symbol.asyncDispose]();
    }
    // Without a group to itself there is no such pause, and splicing is refused with that reason.
    await using host = await connect(idOf(guest));
    await using domain = await host.open(host.ids()[0]!);
    const surgeon = await JournaledSurgeon.open(domain, await knownKernels(), new Journals());
    const { processes } = await surgeon.guest.take();
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
