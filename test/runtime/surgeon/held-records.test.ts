/** Who is held is seen by the guest's own words, where no record tells of it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { psAnswer } from '../../../runtime/control/answers.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { Hosts } from '../../../runtime/hypervisor/connect.ts';
import { FakeHost } from '../../../runtime/hypervisor/fake/host.ts';
import { HeldRecords } from '../../../runtime/surgeon/held-records.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { Journal } from '../../../runtime/surgeon/journal.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { Watcher } from '../../../runtime/watch/watcher.ts';
import { Dice } from '../../live/dice.ts';
import { fakeGuest } from '../daemon/fake-daemon.ts';
import { proved } from '../guest/proved.ts';
import {
  CFS_KERNEL,
  EEVDF_KERNEL,
  knownKernel,
  O1_KERNEL,
  SyntheticGuest,
  type SyntheticTask,
} from '../guest/synthetic.ts';

const TRAP_FREEZE = 1n << 23n;
const JOBCTL_STOP_CONSUME = 1n << 18n;

interface TaskWords {
  readonly state?: number;
  readonly jobctl?: bigint;
  readonly frozen?: true;
  readonly queued?: boolean;
  /** Its control group is frozen by the guest itself. */
  readonly inFrozenGroup?: true;
}

/** TaskWords of a thread by what was done to it; whether that is a hold; whether a look has a reason to look closer. */
const KINDS: Readonly<
  Record<
    string,
    { task: SyntheticTask['state']; kernel?: true; words: TaskWords; held: boolean; suspect: boolean }
  >
> = {
  parked: {
    task: 'sleeping',
    words: { state: 1, jobctl: TRAP_FREEZE, frozen: true },
    held: true,
    suspect: true,
  },
  'parked in a call': { task: 'sleeping', words: { jobctl: TRAP_FREEZE }, held: true, suspect: true },
  'by state': { task: 'sleeping', words: { state: 0x40 }, held: true, suspect: true },
  spliced: { task: 'sleeping', words: { state: 0 }, held: true, suspect: true },
  'frozen by the guest': {
    task: 'sleeping',
    words: { state: 1, jobctl: TRAP_FREEZE, frozen: true, inFrozenGroup: true },
    held: false,
    suspect: true,
  },
  'asked for something else': {
    task: 'sleeping',
    words: { jobctl: JOBCTL_STOP_CONSUME },
    held: false,
    suspect: true,
  },
  asleep: { task: 'sleeping', words: {}, held: false, suspect: false },
  'in disk sleep': { task: 'sleeping', words: { state: 2 }, held: false, suspect: false },
  stopped: { task: 'stopped', words: { jobctl: JOBCTL_STOP_CONSUME }, held: false, suspect: false },
  zombie: { task: 'zombie', words: {}, held: false, suspect: false },
  'a parked kernel thread': {
    task: 'sleeping',
    kernel: true,
    words: { state: 0x40 },
    held: false,
    suspect: false,
  },
  ready: { task: 'ready', words: {}, held: false, suspect: false },
};

function write(
  guest: SyntheticGuest,
  task: bigint,
  words: TaskWords,
  groups: readonly [bigint, bigint],
): void {
  const put = (member: string, value: number | bigint) => guest.put(task, 'task_struct', member, value);
  if (words.state !== undefined) put('__state', words.state);
  if (words.jobctl !== undefined) put('jobctl', words.jobctl);
  if (words.frozen) put('frozen', 1);
  put('cgroups', groups[words.inFrozenGroup ? 1 : 0]);
}

/** Two control groups, of which the second is frozen. */
function makeGroups(guest: SyntheticGuest): [bigint, bigint] {
  const [free, frozen] = [0, 1].map((freeze) => {
    const set = guest.object('css_set');
    const group = guest.object('cgroup');
    guest.put(set, 'css_set', 'dfl_cgrp', group);
    guest.put(group, 'cgroup', 'freezer.e_freeze', freeze);
    return set;
  });
  return [free!, frozen!];
}

for (const kernel of [CFS_KERNEL, EEVDF_KERNEL]) {
  test(`${kernel}: of random processes the held ones are found, by whichever technique, and nobody else`, async (t) => {
    for (let seed = 1; seed <= 10; seed++) {
      const dice = new Dice(seed);
      const names = Object.keys(KINDS);
      const chosen = Array.from({ length: 24 }, () => names[Math.floor(dice.next() * names.length)]!);
      const tasks = chosen.map((name, i): SyntheticTask => {
        const { task, kernel: isKernel } = KINDS[name]!;
        // Some are threads of the process before.
        const leader = i > 0 && dice.next() < 0.3 && !isKernel && !KINDS[chosen[i - 1]!]!.kernel;
        const place = { pid: 100 + i, comm: 'x', cpu: i % 2, state: task, ppid: 1 };
        return { ...place, ...(leader && { tgid: 99 + i }), ...(isKernel && { kernel: true }) };
      });
      for (const [i, task] of tasks.entries()) {
        const before = tasks[i - 1];
        if (task.tgid !== undefined && before?.tgid !== undefined) task.tgid = before.tgid;
      }
      const made = await SyntheticGuest.make({
        kernel,
        tasks: [{ pid: 1, comm: 'init', cpu: 0, state: 'sleeping' }, ...tasks],
      });
      const groups = makeGroups(made);
      for (const [i, { pid }] of tasks.entries())
        write(made, made.tasks.get(pid)!, KINDS[chosen[i]!]!.words, groups);
      const guest = await Guest.attach(made.domain, [knownKernel(kernel)]);
      const { processes } = await guest.take({ withoutQueues: true });
      const of = (what: 'held' | 'suspect') =>
        [
          ...new Set(tasks.flatMap(({ pid, tgid }, i) => (KINDS[chosen[i]!]![what] ? [tgid ?? pid] : []))),
        ].sort();
      const about = `seed ${seed}: ${chosen}`;
      const suspects = processes.filter((process) => process.suspects !== undefined);
      t.deepEqual(suspects.map(({ pid }) => pid).sort(), of('suspect'), about);
      const records = HeldRecords.of(guest, processes, () => holderFor(guest, proved()));
      const found = (await records.heldIn(processes)).map(({ pid }) => pid).sort();
      t.deepEqual(found, of('held'), about);
      guest.detach();
    }
  });
}

test('a host without a record shows who is held in its guest, in ps and top, until he is let go', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'held-records-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const made = await fakeGuest('web', { comm: 'one', state: 'ready' }, { comm: 'two', state: 'ready' });
  const known = [knownKernel(O1_KERNEL)];
  const attached = await Guest.attach(made.domain, known);
  const surgeon = new Surgeon(made.domain, attached, holderFor(attached));
  const two = attached.snapshot().processes.find(({ comm }) => comm === 'two')!;
  const watcher = new Watcher(new Hosts([new FakeHost([made.domain])]), known, new Journal(folder));
  const ps = async () => psAnswer(await watcher.look());
  const top = async () => (await watcher.tick()).domains[0]!.processes.find(({ pid }) => pid === two.pid)!;
  t.deepEqual((await ps()).notes, []);
  await surgeon.hold(two, { limitMs: 60_000 });
  const { rows, notes } = await ps();
  t.deepEqual(
    rows.filter(({ heldBy }) => heldBy !== undefined).map(({ comm, state, heldBy }) => [comm, state, heldBy]),
    [['two', 'held', 'unknown']],
  );
  t.false(rows.some((row) => 'suspects' in row));
  t.deepEqual(notes.length, 1);
  t.regex(notes[0]!, /^web: held, and no record here tells by whom: 11 \(two\); domsched release --all/);
  const shown = await top();
  t.is(shown.state, 'held');
  t.is(shown.held?.policy, 'unknown');
  t.is((await top()).held?.since, shown.held?.since, 'since it was found');
  await surgeon.release(two, { limitMs: 60_000 });
  t.is((await top()).state, 'ready');
  t.deepEqual((await ps()).notes, []);
  attached.detach();
  watcher.detach();
});
