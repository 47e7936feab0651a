import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suiteKernels } from '../../../kernels/suites.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import type { Domain } from '../../../runtime/hypervisor/types.ts';
import { type KnownKernel, knownKernels } from '../../../runtime/layout/registry.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import type { Technique } from '../../../runtime/technique/step.ts';
import { findProcess } from '../../live/cycles.ts';
import { bootDebian, bootImage, type LiveGuest } from '../../live/guest.ts';
import { GuestCounter } from '../../live/guest-counters.ts';
import { kernelFile } from '../../live/o1.ts';
import { O1Memory } from '../../live/o1-memory.ts';
import { TestLayouts } from '../../live/ps-layouts.ts';
import type { Form, Measuring, UsedMachines } from '../experiment.ts';
import { bootPaperGuest } from '../o1-guest.ts';
import type { OffCpuSample } from './judge.ts';
import { LastRun, sharedNow, type WatchedWord } from './last-run.ts';

const HOLDS = { glance: 6, short: 15, full: 100 };
/** What runs all the time, what sleeps for most of it, what writes and reads files: the paper could stop none of them. */
const TARGETS = ['hog', 'sleeper', 'files'] as const;
/** On a busy host. */
const LIMIT_MS = 60_000;
/** So long a target has run, and is seen not to run, before the next thing. */
const STEADY_MS = 120;
/** A target that is let go runs again within this time, or the experiment ends. */
const AGAIN_MS = 30_000;

interface Place {
  readonly kernel: string;
  readonly domain: Domain;
  readonly known: readonly KnownKernel[];
  /** Where one sees it run. */
  word(target: string): Promise<WatchedWord>;
  readonly targets: readonly { readonly kind: OffCpuSample['target']; readonly comm: string }[];
}

export async function measure(measuring: Measuring): Promise<UsedMachines> {
  const guests: string[] = [];
  await o1(measuring, guests);
  const kernels = measuring.form === 'glance' ? [] : await debianKernels(measuring.form);
  let accelerator: UsedMachines['accelerator'] = 'tcg';
  for (const boot of kernels) {
    await using machine = await boot();
    ({ accelerator } = machine);
    await debian(machine, measuring, guests);
  }
  return { accelerator, guests };
}

async function o1(measuring: Measuring, guests: string[]): Promise<void> {
  await using paperGuest = await bootPaperGuest('o1', 'pi1,pi2');
  await paperGuest.guest.waitFor(/^pi2 /, 120_000);
  await using layouts = await TestLayouts.of(kernelFile('base'));
  await using memory = await O1Memory.open(paperGuest.guest, 'base');
  await using domain = await QemuDomain.attach({ qmp: paperGuest.qmp }, paperGuest.connection);
  const curr = memory.physical((await memory.runqueue(0)) + memory.offset('runqueue', 'curr'));
  await holdAll(
    {
      kernel: '2.6.16 (layout)',
      domain,
      known: layouts.known,
      targets: [{ kind: 'hog', comm: 'pi1' }],
      word: async (comm) => ({
        file: paperGuest.guest.memoryFile,
        offset: curr,
        equals: (await memory.tasks()).get(comm)!,
      }),
    },
    measuring,
  );
  guests.push('our O(1) guest with the layout of Linux 2.6.16');
}

/** Boots of Debian's kernels: 6.1 and 6.12, and the oldest and the newest of all suites. */
async function debianKernels(form: Form): Promise<(() => Promise<LiveGuest & { release: string }>)[]> {
  const programs = [
    { kind: 'burner', name: 'hog' },
    { kind: 'burner', name: 'other' },
    { kind: 'sleeper', name: 'sleeper' },
    { kind: 'files', name: 'files' },
  ] as const;
  const options = { cpus: 1, memory: 256, programs, shellNice: -10 };
  const suites = suiteKernels().filter(({ release }) => release.includes('-cloud-'));
  const [oldest, newest] = [suites[0], suites.at(-1)];
  const seven = form === 'full' ? suites.find(({ release }) => release.startsWith('7.0')) : undefined;
  const others = [...new Set([oldest, seven, newest])].filter((kernel) => kernel !== undefined);
  return [
    ...(['debian-6.1-cloud', 'debian-6.12-cloud'] as const).map((kernel) => async () => {
      const machine = await bootDebian({
        ...options,
        name: kernel.replace('debian-', '').replace('.', '-'),
        kernel,
      });
      return Object.assign(machine, { release: machine.kernel.release });
    }),
    ...others.map(({ vmlinuz, release }) => async () => {
      const machine = await bootImage(vmlinuz, { ...options, name: `suite-${release.split('.')[0]}` });
      return Object.assign(machine, { release });
    }),
  ];
}

async function debian(
  machine: LiveGuest & { readonly release: string },
  measuring: Measuring,
  guests: string[],
): Promise<void> {
  await using domain = await QemuDomain.attach(machine.sockets, machine.connection);
  await holdAll(
    {
      kernel: machine.release.replace(/\+.*|-.*/, ''),
      domain,
      known: await knownKernels(),
      targets: TARGETS.map((kind) => ({ kind, comm: kind })),
      word: async (comm) => {
        using counter = GuestCounter.open(machine, comm);
        return { file: path.join(machine.directory, 'memory'), offset: counter.offset };
      },
    },
    measuring,
  );
  machine.checkConsole();
  guests.push(`Debian ${machine.release}`);
}

/** Every target by every technique that the kernel has for it, in turn. */
async function holdAll(place: Place, { form, put, say }: Measuring): Promise<void> {
  const { kernel, domain } = place;
  requireCapabilities(domain, 'pause', 'writeFrames', 'registers');
  const guest = await Guest.attach(domain, place.known);
  const surgeon = new Surgeon(domain, guest, holderFor(guest));
  const { processes } = await guest.take();
  say(`${kernel}: ${surgeon.techniques.join(', ')}`);
  for (const { kind, comm } of place.targets) {
    const target = findProcess(processes, comm);
    await using seen = new LastRun(await place.word(comm));
    // A queue has only who is ready in it: what sleeps is parked.
    const techniques: readonly Technique[] = kind === 'hog' ? surgeon.techniques : ['park'];
    for (let round = 0; round < HOLDS[form]; round++) {
      for (const technique of techniques) {
        await ran(seen, sharedNow());
        const begin = sharedNow();
        const { attempts, pausedUs, outcome } = await surgeon.hold(target, {
          techniques: [technique],
          limitMs: LIMIT_MS,
        });
        const returnedMs = sharedNow() - begin;
        await sleep(STEADY_MS);
        const offMs = Math.max(0, seen.ms - begin);
        const isOff = outcome === 'held' && offMs <= returnedMs + STEADY_MS / 2;
        put({ kernel, target: kind, technique, offMs, returnedMs, attempts, pausedUs, isOff });
        await surgeon.release(target, { limitMs: LIMIT_MS });
      }
    }
  }
  guest.detach();
}

/** Waits until it is seen to run after some moment. @throws Error at the limit */
async function ran(seen: LastRun, since: number): Promise<void> {
  for (const end = sharedNow() + AGAIN_MS; seen.ms <= since; await sleep(1))
    if (sharedNow() > end) throw new Error('what was let go does not run');
}
