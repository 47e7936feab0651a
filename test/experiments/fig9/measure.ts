import { readdirSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import process from 'node:process';
import { Guest } from '../../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { makeGroup, moveInto, removeGroup } from '../../live/control-group.ts';
import { findProcess } from '../../live/cycles.ts';
import { bootDebian, type LiveGuest } from '../../live/guest.ts';
import { GuestCounter } from '../../live/guest-counters.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { pin } from '../pin.ts';
import type { Fig9Sample } from './judge.ts';
import { loopsOfAMs, shortJobs } from './short-jobs.ts';

const CPU_MS = {
  glance: [10],
  short: [1, 2, 5, 10, 20, 50, 100, 200],
  full: [1, 2, 5, 10, 20, 50, 100, 200],
} as const;
const ROUNDS = { glance: 6, short: 12, full: 60 };
const MODES = ['alone', 'loaded', 'preferred'] as const;
/** All of both machines on one CPU of the host. */
const CPU = 1;
/**
 * The paper's 256 and 64, sixteen times each: what counts is the ratio, and the rest of this host, which is in no domain,
 * counts little. Domain A keeps its weight in all modes, so that it is B alone that a mode weighs otherwise.
 */
const WEIGHTS = { a: 256 * 16, equal: 256 * 16, less: 64 * 16 };
/** Where there are no control groups: a quarter of the weight, as nearly as nice values come to it (272 of 1024). */
const STAND_IN_NICE = 6;
const NICE = { job: -20, others: 19 };
const LIMIT_MS = 120_000;

interface Fig9Domain {
  readonly machine: LiveGuest;
  readonly domain: QemuDomain;
  readonly surgeon: Surgeon;
  readonly guest: Guest;
  renice(comm: string, nice: number): Promise<void>;
}

async function attach(machine: LiveGuest): Promise<Fig9Domain> {
  const domain = await QemuDomain.attach(machine.sockets, machine.connection);
  requireCapabilities(domain, 'pause', 'writeFrames');
  const guest = await Guest.attach(domain, await knownKernels());
  const surgeon = new Surgeon(domain, guest, holderFor(guest));
  const renice = async (comm: string, nice: number) => {
    await surgeon.renice(findProcess((await guest.take()).processes, comm), nice, { limitMs: LIMIT_MS });
  };
  return { machine, domain, surgeon, guest, renice };
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  const groups = ['a', 'b'].map((name) => makeGroup(`domsched-fig9-${process.pid}-${name}`));
  const hasGroups = groups.every((group) => group !== undefined);
  try {
    const options = { cpus: 1, memory: 256, shellNice: -10 };
    await using a = await bootDebian({
      ...options,
      name: 'a',
      programs: [
        { kind: 'jobs', name: 'job' },
        { kind: 'burner', name: 'pi1' },
      ],
    });
    await using b = await bootDebian({
      ...options,
      name: 'b',
      programs: [
        { kind: 'burner', name: 'pi2' },
        { kind: 'burner', name: 'pi3' },
      ],
    });
    for (const [index, { process: qemu }] of [a, b].entries()) {
      await pin(qemu.pid!, CPU);
      if (hasGroups) moveInto(groups[index]!, qemu.pid!);
    }
    const [first, second] = [await attach(a), await attach(b)];
    await using _detach = {
      async [Symbol.asyncDispose]() {
        for (const { guest, domain } of [first, second]) {
          guest.detach();
          await domain.close();
        }
      },
    };
    using job = GuestCounter.open(a, 'job');
    const runJob = shortJobs(job);
    const setMode = async (mode: Fig9Sample['mode']) => {
      const signal = mode === 'alone' ? 'STOP' : 'CONT';
      await a.run(`killall -${signal} pi1`);
      await b.run(`killall -${signal} pi2 pi3`);
      const preferred = mode === 'preferred';
      if (hasGroups) await second.domain.scheduler!.set({ weight: preferred ? WEIGHTS.less : WEIGHTS.equal });
      else niceOf(b, getPriority() + (preferred ? STAND_IN_NICE : 0));
      await first.renice('job', preferred ? NICE.job : 0);
      for (const [domain, comm] of [
        [first, 'pi1'],
        [second, 'pi2'],
        [second, 'pi3'],
      ] as const)
        await domain.renice(comm, preferred ? NICE.others : 0);
    };
    if (hasGroups) await first.domain.scheduler!.set({ weight: WEIGHTS.a });
    await setMode('alone');
    const perMs = await loopsOfAMs(runJob);
    say(
      `${perMs.toFixed(0)} rounds of a loop are 1 ms; weights by ${hasGroups ? 'control groups' : 'nice values'}`,
    );
    for (let round = 0; round < ROUNDS[form]; round++) {
      // What ended a round begins the next one.
      for (const mode of round % 2 === 0 ? MODES : MODES.toReversed()) {
        await setMode(mode);
        for (const cpuMs of CPU_MS[form]) {
          const tookMs = await runJob(Math.max(1, Math.round(cpuMs * perMs)));
          put({ round, mode, cpuMs, tookMs, weights: hasGroups ? 'groups' : 'nice' });
        }
      }
      say(`round ${round + 1} of ${ROUNDS[form]}`);
    }
    a.checkConsole();
    b.checkConsole();
    return {
      accelerator: a.accelerator,
      guests: [
        `A and B: Debian ${a.kernel.release}, 1 vCPU each, both on one CPU of the host; A: the job and pi1; B: pi2, pi3`,
      ],
    };
  } finally {
    for (const group of groups) if (group !== undefined) await removeGroup(group);
  }
}

function niceOf({ process: qemu }: LiveGuest, nice: number): void {
  for (const thread of readdirSync(`/proc/${qemu.pid}/task`)) setPriority(Number(thread), nice);
}
