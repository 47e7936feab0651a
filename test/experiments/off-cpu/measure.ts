import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { suiteKernels } from '../../../kernels/suites.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../../runtime/hypervisor/capability.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import { type KnownKernel, knownKernels } from '../../../runtime/layout/registry.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { type ProcessKey, Surgeon } from '../../../runtime/surgeon/surgeon.ts';
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
import { LastRun, ran, STEADY_MS, sharedNow, type WatchedWord } from './last-run.ts';

const HOLDS = { glance: 6, short: 15, full: 100 };
/** Of the hogs of all kernels at once. */
const TOGETHER = { glance: 6, short: 8, full: 50 };
/** What runs all the time, what sleeps for most of it, what writes and reads files: the paper could stop none of them. */
const TARGETS = ['hog', 'sleeper', 'files'] as const;
/** On a busy host. */
const LIMIT_MS = 60_000;

interface Place {
  readonly kernel: string;
  readonly guest: string;
  readonly accelerator: UsedMachines['accelerator'];
  readonly known: readonly KnownKernel[];
  attach(): Promise<QemuDomain>;
  /** While others are measured it has no CPU of the host. */
  qmp(command: 'stop' | 'cont'): Promise<unknown>;
  /** Where one sees it run. */
  word(target: string): Promise<WatchedWord>;
  readonly targets: readonly { readonly kind: OffCpuSample['target']; readonly comm: string }[];
  /** @throws Error with what its console says of trouble */
  check(): void;
}

/** Each kernel by itself, and then the hogs of all at once. */
export async function measure(measuring: Measuring): Promise<UsedMachines> {
  await using machines = new AsyncDisposableStack();
  const boots = [o1, ...(measuring.form === 'glance' ? [] : debianKernels(measuring.form))];
  const places: Place[] = [];
  for (const boot of boots) {
    const place = await boot(machines);
    places.push(place);
    await holdAll(place, measuring);
    await place.qmp('stop');
  }
  if (places.length > 1) await holdTogether(places, measuring);
  for (const place of places) place.check();
  return { accelerator: places[0]!.accelerator, guests: places.map(({ guest }) => guest) };
}

async function o1(machines: AsyncDisposableStack): Promise<Place> {
  const { guest, qmp, connection } = machines.use(await bootPaperGuest('o1', 'pi1,pi2'));
  await guest.waitFor(/^pi2 /, 120_000);
  const layouts = machines.use(await TestLayouts.of(kernelFile('base')));
  const memory = machines.use(await O1Memory.open(guest, 'base'));
  const curr = memory.physical((await memory.runqueue(0)) + memory.offset('runqueue', 'curr'));
  return {
    kernel: '2.6.16 (layout)',
    guest: 'our O(1) guest with the layout of Linux 2.6.16',
    accelerator: guest.accelerator,
    known: layouts.known,
    attach: () => QemuDomain.attach({ qmp }, connection),
    qmp: (command) => guest.qmp(command),
    targets: [{ kind: 'hog', comm: 'pi1' }],
    word: async (comm) => ({
      file: guest.memoryFile,
      offset: curr,
      equals: (await memory.tasks()).get(comm)!,
    }),
    check() {
      const bad = guest.lines.find((line) => /BUG|errors=[1-9]/.test(line));
      if (bad !== undefined) throw new Error(bad);
    },
  };
}

/** Boots of Debian's kernels: 6.1 and 6.12, and the oldest and the newest of all suites. */
function debianKernels(form: Form): ((machines: AsyncDisposableStack) => Promise<Place>)[] {
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
    ...(['debian-6.1-cloud', 'debian-6.12-cloud'] as const).map(
      (kernel) => async (machines: AsyncDisposableStack) => {
        const name = kernel.replace('debian-', '').replace('.', '-');
        const machine = machines.use(await bootDebian({ ...options, name, kernel }));
        return debian(machine, machine.kernel.release);
      },
    ),
    ...others.map(({ vmlinuz, release }) => async (machines: AsyncDisposableStack) => {
      const name = `suite-${release.split('.')[0]}`;
      return debian(machines.use(await bootImage(vmlinuz, { ...options, name })), release);
    }),
  ];
}

async function debian(machine: LiveGuest, release: string): Promise<Place> {
  return {
    kernel: release.replace(/\+.*|-.*/, ''),
    guest: `Debian ${release}`,
    accelerator: machine.accelerator,
    known: await knownKernels(),
    attach: () => QemuDomain.attach(machine.sockets, machine.connection),
    qmp: async (command) => (await machine.monitor()).execute(command),
    targets: TARGETS.map((kind) => ({ kind, comm: kind })),
    word: async (comm) => {
      using counter = GuestCounter.open(machine, comm);
      return { file: path.join(machine.directory, 'memory'), offset: counter.offset };
    },
    check: () => machine.checkConsole(),
  };
}

/** Every target by every technique that the kernel has for it, in turn. */
async function holdAll(place: Place, { form, put, say }: Measuring): Promise<void> {
  const { kernel } = place;
  await using domain = await place.attach();
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

/** All kernels run at once; their hogs are held one after the other, each while those before it are, in turn and back. */
async function holdTogether(places: readonly Place[], { form, put, say }: Measuring): Promise<void> {
  say(`${places.length} kernels at once`);
  await Promise.all(places.map((place) => place.qmp('cont')));
  await using attached = new AsyncDisposableStack();
  const hogs: { kernel: string; guest: Guest; surgeon: Surgeon; hog: ProcessKey; seen: LastRun }[] = [];
  for (const { kernel, known, attach, targets, word } of places) {
    const domain = attached.use(await attach());
    requireCapabilities(domain, 'pause', 'writeFrames', 'registers');
    const guest = await Guest.attach(domain, known);
    const { comm } = targets.find(({ kind }) => kind === 'hog')!;
    const hog = findProcess((await guest.take()).processes, comm);
    const seen = attached.use(new LastRun(await word(comm)));
    hogs.push({ kernel, guest, surgeon: new Surgeon(domain, guest, holderFor(guest)), hog, seen });
  }
  for (let round = 0; round < TOGETHER[form]; round++) {
    const turn = round % 2 === 0 ? hogs : hogs.toReversed();
    const held: Omit<OffCpuSample, 'isOff'>[] = [];
    for (const { seen } of turn) await ran(seen, sharedNow());
    const began = new Map<string, number>();
    for (const { kernel, surgeon, hog } of turn) {
      const begin = sharedNow();
      began.set(kernel, begin);
      const { attempts, pausedUs, outcome, techniques } = await surgeon.hold(hog, { limitMs: LIMIT_MS });
      if (outcome !== 'held') throw new Error(`${kernel}: ${outcome}`);
      const technique = techniques.at(-1)!;
      const returnedMs = sharedNow() - begin;
      held.push({
        kernel,
        target: 'hog',
        technique,
        offMs: 0,
        returnedMs,
        attempts,
        pausedUs,
        together: places.length,
      });
    }
    await sleep(STEADY_MS);
    for (const [i, { kernel, seen }] of turn.entries()) {
      const offMs = Math.max(0, seen.ms - began.get(kernel)!);
      put({ ...held[i]!, offMs, isOff: offMs <= held[i]!.returnedMs + STEADY_MS / 2 });
    }
    for (const { surgeon, hog } of turn) await surgeon.release(hog, { limitMs: LIMIT_MS });
  }
  for (const { guest } of hogs) guest.detach();
}
