import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Guest } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { bootO1, buildO1, kernelFile, type O1Guest, type O1Variant } from './o1.ts';
import { domsched, TestLayouts } from './ps-layouts.ts';

const COMMAND_LINE = 'run=pi1:5@0,pi2:-7,sleeper,pair,forker report=100 strict';
/** ns per tick: the guest is built with CONFIG_HZ=250. */
const TICK_NS = 4e6;

/** A line that a program prints about itself. */
interface GuestLine {
  readonly comm: string;
  readonly pid: number;
  readonly cpu: number;
  readonly nice: number;
  readonly ticks: number;
}

for (const variant of ['base', 'preempt', 'schedstats', 'up'] as const satisfies readonly O1Variant[]) {
  test.serial(`O(1) guest, ${variant}: ps shows what its programs say of themselves`, async (t) => {
    await buildO1();
    await using layouts = await TestLayouts.of(kernelFile(variant));
    const folder = await mkdtemp(path.join(tmpdir(), 'ps-o1-'));
    await using _folder = { [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
    const qmp = path.join(folder, 'qmp.sock');
    await using guest = await bootO1({
      variant,
      cpus: variant === 'up' ? 1 : 2,
      commandLine: COMMAND_LINE,
      extraArguments: ['-qmp', `unix:${qmp},server=on,wait=off`],
    });
    t.log(`under ${guest.accelerator}`);
    for (const name of ['pi1', 'pi2', 'sleeper']) await guest.waitFor(new RegExp(`^${name} pid=`));
    await againstConsole(t, guest, qmp, layouts, variant);

    // By its monitor and by its process, whose memory its own page tables have to prove.
    const byProcess = variant === 'base' ? [`pid:${guest.pid}`] : [];
    for (const place of [`qemu:unix:${qmp}`, ...byProcess]) {
      const { stdout } = await domsched(['ps', '--connect', place, '--json', '--sort', '-pid'], {
        env: { XDG_DATA_HOME: layouts.dataHome },
      });
      const rows = JSON.parse(stdout) as (Process & { domain: string })[];
      t.is(rows.at(-1)?.comm, 'init', place);
      t.is(rows.find(({ comm }) => comm === 'pi1')?.nice, 5, place);
      t.is(rows.find(({ comm }) => comm === 'pi1')?.domain, 'o1', place);
    }
    t.false(guest.lines.some((line) => /BUG|check:/.test(line)));
  });
}

async function againstConsole(
  t: ExecutionContext,
  guest: O1Guest,
  qmp: string,
  layouts: TestLayouts,
  variant: O1Variant,
): Promise<void> {
  await using domain = await QemuDomain.attach({ qmp }, `qemu:unix:${qmp}`);
  const attached = await Guest.attach(domain, layouts.known);
  t.is(attached.kernel.slide, 0n);
  t.is(attached.queueSlots.lock.kind, variant === 'up' ? 'none' : 'byte');
  t.is(attached.queueSlots.fair, undefined);
  t.is(attached.cpus.length, variant === 'up' ? 1 : 2);
  for (let round = 0; round < 6; round++) {
    const before = latest(guest);
    const { processes, runQueues, exact } = await attached.take({ pause: round % 2 === 1 });
    t.is(exact, round % 2 === 1);
    const from = guest.lines.length;
    await waitForLines(guest, from, ['pi1', 'pi2', 'sleeper']);
    const after = latest(guest);
    for (const name of ['pi1', 'pi2', 'sleeper']) {
      const first = before.get(name)!;
      const last = after.get(name)!;
      const found = processes.find(({ comm }) => comm === name);
      t.is(found?.pid, first.pid);
      t.is(found?.tgid, first.pid);
      t.is(found?.ppid, 1);
      t.is(found?.nice, first.nice);
      t.is(found?.threads, 1);
      t.false(found?.kernelThread);
      t.is(found?.policy, 'normal');
      if (name === 'pi1') t.is(found?.cpu, 0, 'it is pinned there');
      const ticks = (found!.utimeNs + found!.stimeNs) / TICK_NS;
      t.true(Number.isInteger(ticks));
      t.true(ticks >= first.ticks && ticks <= last.ticks, `${name}: ${first.ticks}, ${ticks}, ${last.ticks}`);
    }
    // What computes all the time is always running or ready, and in a queue.
    const queued = new Set(runQueues.flatMap(({ tasks }) => tasks.map(({ pid }) => pid)));
    for (const name of ['pi1', 'pi2']) {
      const found = processes.find(({ comm }) => comm === name)!;
      t.true(['running', 'ready'].includes(found.state), `${name} is ${found.state}`);
      t.true(queued.has(found.pid));
    }
    const parents = processes
      .filter(({ comm }) => comm.startsWith('pair'))
      .map(({ pid, ppid }) => [pid, ppid]);
    t.is(parents.length, 2, 'the two ends of a pipe');
    t.true(
      parents.some(([, ppid]) => parents.some(([pid]) => pid === ppid)),
      'one is the child of the other',
    );
  }
}

/** The last line of each program. */
function latest(guest: O1Guest): Map<string, GuestLine> {
  const found = new Map<string, GuestLine>();
  for (const line of guest.lines) {
    const match = /^(\w+) pid=(\d+) cpu=(\d+) nice=(-?\d+) ticks=(\d+) /.exec(line);
    if (match === null) continue;
    const [, comm, pid, cpu, nice, ticks] = match as unknown as [
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    found.set(comm, { comm, pid: Number(pid), cpu: Number(cpu), nice: Number(nice), ticks: Number(ticks) });
  }
  return found;
}

/** Waits until each of the programs has printed two lines more: the first may have been on its way. */
async function waitForLines(guest: O1Guest, from: number, names: readonly string[]): Promise<void> {
  const limit = Date.now() + 60_000;
  while (
    names.some((name) => guest.lines.slice(from).filter((line) => line.startsWith(`${name} `)).length < 2)
  ) {
    if (Date.now() > limit) throw new Error(`no new lines: ${guest.lines.slice(-5).join('\n')}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
