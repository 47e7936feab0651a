/** Nice values of live processes: the guest says the new ones, and the scheduler gives the shares of their weights. */
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { bootDebian, type LiveGuest } from './guest.ts';
import { parseProcStats } from './proc-stat.ts';

const names = ['first', 'second', 'third'] as const;
const patient = { limitMs: 30_000 };
/** kernel/sched/core.c, sched_prio_to_weight[]. */
const WEIGHTS: Readonly<Record<number, number>> = { [-5]: 3121, 0: 1024, 5: 335, 19: 15 };

/**
 * Parts that processes had of the CPU time that they had together in three seconds, by the guest's own account, which
 * does not depend on how fast the host is. Where the host does not run a vCPU for a while, the process on it is charged
 * for that and the others get theirs later: until these are the shares of `nices`, the time becomes longer, up to half
 * a minute, from the same start.
 */
async function sharesOf(
  guest: LiveGuest,
  pids: readonly number[],
  nices?: readonly number[],
): Promise<number[]> {
  const before = parseProcStats(await guest.run('cat /proc/[0-9]*/stat'));
  for (let seconds = 3; ; seconds += 3) {
    await sleep(3_000);
    const after = parseProcStats(await guest.run('cat /proc/[0-9]*/stat'));
    const ran = pids.map((pid) => after.get(pid)!.utime - before.get(pid)!.utime);
    const total = ran.reduce((sum, ticks) => sum + ticks, 0);
    const shares = ran.map((ticks) => ticks / total);
    if (nices === undefined || isNear(nices, shares) || seconds >= 30) return shares;
  }
}

function byWeight(nices: readonly number[]): number[] {
  const total = nices.reduce((sum, nice) => sum + WEIGHTS[nice]!, 0);
  return nices.map((nice) => WEIGHTS[nice]! / total);
}

function isNear(nices: readonly number[], measured: readonly number[]): boolean {
  const expected = byWeight(nices);
  return measured.every((share, index) => Math.abs(share - expected[index]!) < 0.06);
}

function checkShares(t: ExecutionContext, nices: readonly number[], measured: readonly number[]): void {
  const expected = byWeight(nices);
  const shown = (values: readonly number[]) => values.map((value) => value.toFixed(3)).join(' / ');
  t.log(`nice ${nices.join(', ')}: ${shown(measured)}, by weight ${shown(expected)}`);
  t.true(isNear(nices, measured), shown(measured));
}

async function allRun(guest: LiveGuest, ...all: string[]): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end; await sleep(50)) {
    const progress = await guest.progress(...all);
    if (Object.values(progress).every((value) => value > 0)) return;
  }
}

/** Each program in a control group of its own, or each in an autogroup of its own, as a session. */
const GROUPS = [
  {
    kernel: 'debian-6.1-cloud',
    way: 'control groups',
    setup: `
mount -t cgroup2 none /sys/fs/cgroup
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/0 /sys/fs/cgroup/1 /sys/fs/cgroup/2
`,
  },
  { kernel: 'debian-6.12-cloud', way: 'autogroups', sessions: true },
];

for (const { kernel, way, ...options } of GROUPS) {
  test.serial(
    `${kernel}: renice of groups shifts the shares between ${way}, where that of a process does not`,
    async (t) => {
      t.timeout(900_000);
      const programs = names.map((name) => ({ kind: 'burner', name }) as const);
      await using guest = await bootDebian({ ...options, kernel, programs });
      await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
      const attached = await Guest.attach(domain, await knownKernels());
      const surgeon = new Surgeon(domain, attached, holderFor(attached));
      await allRun(guest, ...names);
      const processes = await processesOf(attached);
      const targets = names.map((name) => processes.find(({ comm }) => comm === name)!);
      const pids = targets.map(({ pid }) => pid);
      for (const [index, pid] of pids.entries()) {
        await guest.run(`taskset -p 1 ${pid}`);
        if (way === 'control groups') await guest.run(`echo ${pid} >/sys/fs/cgroup/${index}/cgroup.procs`);
      }
      // Among groups a nice value of a process is nothing.
      await surgeon.renice(targets[1]!, -5, patient);
      checkShares(t, [0, 0, 0], await sharesOf(guest, pids, [0, 0, 0]));
      for (const nices of [
        [5, -5, 19],
        [0, 0, 0],
      ]) {
        for (const [index, nice] of nices.entries()) {
          const { outcome, members } = await surgeon.reniceGroup(targets[index]!, nice, patient);
          t.like({ outcome, members }, { outcome: 'reniced', members: [pids[index]!] });
        }
        // A group that comes from a small weight waits until the virtual times of the others have come to its own.
        let measured = await sharesOf(guest, pids);
        for (let tries = 1; tries < 10 && !isNear(nices, measured); tries++)
          measured = await sharesOf(guest, pids);
        checkShares(t, nices, measured);
        for (const [index, nice] of nices.entries()) {
          if (way === 'autogroups')
            t.regex(await guest.run(`cat /proc/${pids[index]}/autogroup`), new RegExp(` nice ${nice}$`, 'm'));
          // include/linux/sched.h, sched_weight_to_cgroup(): 1024 is 100.
          else
            t.is(
              Number(await guest.run(`cat /sys/fs/cgroup/${index}/cpu.weight`)),
              Math.min(Math.max(Math.round((WEIGHTS[nice]! * 100) / 1024), 1), 10_000),
            );
        }
      }
      const init = processes.find(({ pid }) => pid === 1)!;
      if (way === 'control groups')
        await t.throwsAsync(surgeon.reniceGroup(init, 5, patient), { code: 'refused' });
      guest.checkConsole();
      attached.detach();
    },
  );
}

for (const kernel of ['debian-6.1-cloud', 'debian-6.12-cloud']) {
  test.serial(`${kernel}: renice has effect at once and gives the right shares`, async (t) => {
    t.timeout(900_000);
    const programs = [
      ...names.map((name) => ({ kind: 'burner', name }) as const),
      { kind: 'threads', name: 'many' } as const,
    ];
    await using guest = await bootDebian({ kernel, programs });
    await using domain = await QemuDomain.attach(guest.sockets, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    await allRun(guest, ...names, 'many');
    const processes = await processesOf(attached);
    const targets = names.map((name) => processes.find(({ comm }) => comm === name)!);
    const many = processes.find(({ comm }) => comm === 'many')!;
    // One CPU for all three; the threads have the other one.
    for (const { pid } of targets) await guest.run(`taskset -p 1 ${pid}`);
    await guest.run(`for t in /proc/${many.pid}/task/*; do taskset -p 2 \${t##*/}; done`);

    for (const nices of [
      [5, -5, 19],
      [0, 0, 0],
      [0, 5, 5],
    ]) {
      for (const [index, nice] of nices.entries()) {
        t.is((await surgeon.renice(targets[index]!, nice, patient)).outcome, 'reniced');
      }
      const stats = parseProcStats(await guest.run('cat /proc/[0-9]*/stat'));
      t.deepEqual(
        targets.map(({ pid }) => stats.get(pid)!.nice),
        nices,
      );
      checkShares(
        t,
        nices,
        await sharesOf(
          guest,
          targets.map(({ pid }) => pid),
          nices,
        ),
      );
    }
    // All threads; and what was held before stays held.
    await surgeon.renice(many, 7, patient);
    const threads = parseProcStats(await guest.run(`cat /proc/${many.pid}/task/*/stat`));
    t.is(threads.size, 4);
    for (const { nice } of threads.values()) t.is(nice, 7);
    await surgeon.hold(many, patient);
    await surgeon.renice(many, -7, patient);
    const standing = await guest.progress('many');
    await sleep(300);
    t.deepEqual(await guest.progress('many'), standing);
    t.is((await surgeon.release(many, patient)).outcome, 'released');
    guest.checkConsole();
    attached.detach();
  });
}
