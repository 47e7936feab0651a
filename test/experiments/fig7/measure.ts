import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { Guest } from '../../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { Ticker } from '../../../runtime/tick/ticker.ts';
import { instantOf, partsOf, vcpuThread } from '../../bench/guest-window.ts';
import { estimate } from '../../bench/pairs.ts';
import { bootDebian } from '../../live/guest.ts';
import { GuestCounters } from '../../live/guest-counters.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { PaperWay } from '../paper-way.ts';
import { pin, unpin } from '../pin.ts';
import { isDecided } from '../verdict.ts';
import { type Fig7Sample, RATIO_LIMIT, ratios } from './judge.ts';
import { paperLook } from './paper-look.ts';

const INTERVALS_MS = {
  glance: [1],
  short: [1, 10, 100, 1_000, 5_000],
  full: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000],
} as const;
/** At least; at the shortest interval, whose claim is judged, until it can be, or at most so many. */
const ROUNDS = { glance: 6, short: 8, full: 30 };
const MOST_ROUNDS = { glance: 6, short: 40, full: 120 };
/** Of the window of one way, in ms, at least; a longer interval has one look in each. */
const WINDOW_MS = 700;
const NAMES = ['pi1', 'pi2'];
/** The machine and who looks at it have a CPU of the host each, as domain U and domain 0 had. */
const [OURS, MACHINE] = [0, 1];
/** From the end of one way's looks to the next window. */
const SETTLE_MS = 20;

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  await using machine = await bootDebian({
    name: 'u1',
    cpus: 1,
    memory: 256,
    programs: NAMES.map((name) => ({ kind: 'burner', name })),
  });
  await using domain = await QemuDomain.attach(machine.sockets, machine.connection);
  requireCapabilities(domain, 'pause');
  const guest = await Guest.attach(domain, await knownKernels());
  using paper = new PaperWay(path.join(machine.directory, 'memory'), guest.space);
  using counters = new GuestCounters(machine, NAMES);
  await pin(machine.process.pid!, MACHINE);
  await pin(process.pid, OURS);
  await using _everywhere = { [Symbol.asyncDispose]: () => unpin(process.pid) };
  const thread = await vcpuThread(machine);
  const look = {
    none: async () => undefined,
    ours: async () => {
      await guest.take();
    },
    paper: async () => {
      await using _paused = await domain.pause.acquire();
      paperLook(guest, paper);
    },
  };
  await agree();

  for (const intervalMs of INTERVALS_MS[form]) {
    say(`a look every ${intervalMs} ms`);
    const samples: Fig7Sample[] = [];
    const isJudged = () =>
      intervalMs > INTERVALS_MS[form][0] || isDecided(estimate(ratios(samples)), RATIO_LIMIT);
    for (let round = 0; round < ROUNDS[form] || (round < MOST_ROUNDS[form] && !isJudged()); round++) {
      const ways = ['none', 'ours', 'paper'] as const;
      for (const way of round % 2 === 0 ? ways : ways.toReversed())
        samples.push({ intervalMs, round, way, ...(await window(intervalMs, look[way])) });
    }
    for (const sample of samples) put(sample);
  }
  guest.detach();
  machine.checkConsole();
  return {
    accelerator: machine.accelerator,
    guests: [`U1: Debian ${machine.kernel.release}, 1 vCPU, on a CPU of the host of its own; pi1 and pi2`],
  };

  /** What both programs compute, while the guest is looked at. */
  async function window(
    intervalMs: number,
    once: () => Promise<void>,
  ): Promise<Omit<Fig7Sample, 'intervalMs' | 'round' | 'way'>> {
    await sleep(SETTLE_MS);
    const stop = new AbortController();
    let looks = 0;
    const cpuBefore = process.cpuUsage();
    const [from, before] = [instantOf(thread), counters.progress(...NAMES)];
    // The first look is half an interval from the start, so that a window of one interval has it in its middle.
    const ticking = (async () => {
      await sleep(intervalMs / 2, undefined, { signal: stop.signal }).catch(() => undefined);
      for await (const _missed of new Ticker(intervalMs).ticks(stop.signal)) {
        await once();
        looks += 1;
      }
    })();
    await sleep(Math.max(WINDOW_MS, intervalMs));
    stop.abort();
    await ticking;
    const [to, after] = [instantOf(thread), counters.progress(...NAMES)];
    const { ns, ran, waited } = partsOf(from, to);
    const { user, system } = process.cpuUsage(cpuBefore);
    const [pi1, pi2] = NAMES.map((name) => ((after[name]! - before[name]!) * 1e9) / ns) as [number, number];
    return { pi1, pi2, ran, waited, looks, cpuMsPerLook: looks === 0 ? 0 : (user + system) / 1000 / looks };
  }

  /** Both see the same ready tasks. @throws Error if not */
  async function agree(): Promise<void> {
    await using _paused = await domain.pause.acquire();
    const theirs = paperLook(guest, paper).map(({ pid, comm }) => `${pid} ${comm}`);
    const { runQueues, processes } = await guest.take();
    const ready = new Set(runQueues.flatMap(({ tasks }) => tasks.map(({ pid }) => pid)));
    const ours = processes.filter(({ pid }) => ready.has(pid)).map(({ pid, comm }) => `${pid} ${comm}`);
    if (!NAMES.every((name) => theirs.some((task) => task.endsWith(` ${name}`))))
      throw new Error(`the paper's way sees ${theirs.join(', ')}; we see ${ours.join(', ')}`);
  }
}
