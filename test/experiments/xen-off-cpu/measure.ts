import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Technique } from '../../../runtime/technique/step.ts';
import { GuestCounter } from '../../live/guest-counters.ts';
import { XenRemote } from '../../live/xen-remote.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import type { OffCpuSample } from '../off-cpu/judge.ts';
import { LastRun, ran, STEADY_MS, sharedNow } from '../off-cpu/last-run.ts';
import { ExperimentXen } from '../xen/xen.ts';

const HOLDS = { glance: 6, short: 15, full: 60 };
/** A queue has only who is ready in it: what sleeps is parked. */
const TARGETS: readonly { target: OffCpuSample['target']; techniques: readonly Technique[] }[] = [
  { target: 'hog', techniques: ['park', 'splice', 'state'] },
  { target: 'sleeper', techniques: ['park'] },
  { target: 'files', techniques: ['park'] },
];

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  await using machine = await ExperimentXen.boot();
  const domain = await machine.domain({
    name: 'u1',
    programs: [
      { kind: 'burner', name: 'hog' },
      { kind: 'burner', name: 'other' },
      { kind: 'sleeper', name: 'sleeper' },
      { kind: 'files', name: 'files' },
    ],
  });
  await using remote = await XenRemote.start(machine.xen);
  const { release } = await remote.attach(domain.name);
  const kernel = release.replace(/\+.*|-.*/, '');
  for (const { target, techniques } of TARGETS) {
    say(`${target}: ${HOLDS[form]} holds by ${techniques.join(', ')}`);
    using counter = GuestCounter.open(machine.xen.machine, target);
    await using seen = new LastRun({
      file: path.join(machine.xen.directory, 'memory'),
      offset: counter.offset,
    });
    for (let round = 0; round < HOLDS[form]; round++) {
      for (const technique of techniques) {
        await ran(seen, sharedNow());
        const begin = sharedNow();
        const { outcome, attempts, pausedUs } = await remote.hold(domain.name, target, technique);
        const returnedMs = sharedNow() - begin;
        await sleep(STEADY_MS);
        const offMs = Math.max(0, seen.ms - begin);
        const isOff = outcome === 'held' && offMs <= returnedMs + STEADY_MS / 2;
        put({
          kernel,
          target,
          technique,
          offMs,
          returnedMs,
          attempts,
          pausedUs,
          isOff,
        } satisfies OffCpuSample);
        await remote.release(domain.name, target);
      }
    }
  }
  await machine.check();
  return machine.used('U1: hog and other compute, a sleeper, and one that writes and reads files');
}
