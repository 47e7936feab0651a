import { GuestCounter } from '../../live/guest-counters.ts';
import { XenRemote } from '../../live/xen-remote.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import type { Fig9Sample } from '../fig9/judge.ts';
import { loopsOfAMs, shortJobs } from '../fig9/short-jobs.ts';
import { ExperimentXen } from '../xen/xen.ts';

const CPU_MS = { glance: [20], short: [5, 20, 100], full: [1, 2, 5, 10, 20, 50, 100, 200] } as const;
const ROUNDS = { glance: 6, short: 16, full: 60 };
const MODES = ['alone', 'loaded', 'preferred'] as const;
/** The paper's own. */
const WEIGHTS = { a: 256, equal: 256, less: 64 };
const NICE = { job: -20, others: 19 };

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  await using machine = await ExperimentXen.boot();
  const a = await machine.domain({
    name: 'a',
    programs: [
      { kind: 'jobs', name: 'job' },
      { kind: 'burner', name: 'pi1' },
    ],
  });
  const b = await machine.domain({
    name: 'b',
    programs: [
      { kind: 'burner', name: 'pi2' },
      { kind: 'burner', name: 'pi3' },
    ],
  });
  await using remote = await XenRemote.start(machine.xen);
  for (const { name } of [a, b]) await remote.attach(name);
  using job = GuestCounter.open(machine.xen.machine, 'job');
  const runJob = shortJobs(job);
  const weigh = (domain: string, weight: number) => remote.json('weight', domain, String(weight));
  const setMode = async (mode: Fig9Sample['mode']) => {
    const signal = mode === 'alone' ? 'STOP' : 'CONT';
    await a.run(`killall -${signal} pi1`);
    await b.run(`killall -${signal} pi2 pi3`);
    const preferred = mode === 'preferred';
    await weigh(b.name, preferred ? WEIGHTS.less : WEIGHTS.equal);
    await remote.renice(a.name, 'job', preferred ? NICE.job : 0);
    const others = preferred ? NICE.others : 0;
    for (const [{ name }, comm] of [[a, 'pi1'] as const, [b, 'pi2'] as const, [b, 'pi3'] as const])
      await remote.renice(name, comm, others);
  };
  await weigh(a.name, WEIGHTS.a);
  await setMode('alone');
  const perMs = await loopsOfAMs(runJob);
  say(`${perMs.toFixed(0)} rounds of a loop are 1 ms`);
  for (let round = 0; round < ROUNDS[form]; round++) {
    // What ended a round begins the next one.
    for (const mode of round % 2 === 0 ? MODES : MODES.toReversed()) {
      await setMode(mode);
      for (const cpuMs of CPU_MS[form]) {
        const tookMs = await runJob(Math.max(1, Math.round(cpuMs * perMs)));
        put({ round, mode, cpuMs, tookMs, weights: 'xen' } satisfies Fig9Sample);
      }
    }
    say(`round ${round + 1} of ${ROUNDS[form]}`);
  }
  await machine.check();
  return machine.used('A: the job and pi1; B: pi2 and pi3');
}
