/**
 * Splice and state under CFS and EEVDF: holds and releases burners of live Debian guests at random moments, both
 * ways in turn. What is held makes no progress, what is released goes on, no program sees an error, the queues are
 * whole, and the guest's console stays clean. DOMSCHED_CYCLES=10000 is a soak.
 */
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { cachedKernels } from '../../kernels/cache.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { Draft } from '../../runtime/surgery/draft.ts';
import { FairSurgery } from '../../runtime/surgery/fair.ts';
import { fairGuest } from '../../runtime/surgery/fair-holder.ts';
import { holderFor } from '../../runtime/surgery/holder-for.ts';
import { Surgeon } from '../../runtime/surgery/surgeon.ts';
import { CycleTable, cycle, findProcess, goesOn, PATIENCE_MS, pick, TWO_LEVELS } from './cycles.ts';
import { bootDebian } from './guest.ts';
import type { GuestProgram } from './initramfs.ts';

const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 20);

/** What runs most of the time in user mode: only such a thread can be taken out of a queue, or told to leave it. */
const targets: readonly GuestProgram[] = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
  { kind: 'burner', name: 'burner-c' },
  { kind: 'burner', name: 'burner-d', nice: 5 },
  { kind: 'faults', name: 'faults-a' },
];
const others: readonly GuestProgram[] = [
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
  { kind: 'forker', name: 'forker-a' },
  { kind: 'files', name: 'files-a' },
  { kind: 'tcp', name: 'tcp-a' },
];

/** Nested groups of which the outer one is throttled again and again. */
const LIMITED = `${TWO_LEVELS}
echo 120000 100000 >/sys/fs/cgroup/a/cpu.max
`;

interface Variant {
  kernel: string;
  interrupts: boolean;
  way: string;
  cpus?: number;
  setup?: string;
  sessions?: boolean;
  append?: string;
}

const VARIANTS: Variant[] = [
  { kernel: 'debian-6.1-cloud', interrupts: true, way: 'as it boots' },
  { kernel: 'debian-6.12-cloud', interrupts: true, way: 'in nested groups', setup: TWO_LEVELS },
  {
    kernel: 'debian-6.12-cloud',
    interrupts: false,
    way: 'by ticks alone, each in its autogroup',
    sessions: true,
  },
];
/**
 * The long form: these differ from one above in one thing. With full preemption a thread is long in coming to where it may
 * be held.
 */
if (process.env.DOMSCHED_CYCLES !== undefined) {
  VARIANTS.push(
    { kernel: 'debian-6.12-cloud', interrupts: true, way: 'as it boots' },
    { kernel: 'debian-6.12-cloud', interrupts: true, way: 'on four CPUs', cpus: 4 },
    { kernel: 'debian-6.1-cloud', interrupts: true, way: 'preempt=full', append: 'preempt=full' },
    { kernel: 'debian-6.12-cloud', interrupts: true, way: 'preempt=full', append: 'preempt=full' },
    { kernel: 'debian-6.1-cloud', interrupts: true, way: 'in groups that run out of time', setup: LIMITED },
    { kernel: 'debian-6.12-cloud', interrupts: true, way: 'in groups that run out of time', setup: LIMITED },
  );
  const cached = new Set(cachedKernels().map(({ id }) => id));
  for (const kernel of ['debian-6.1-rt', 'debian-6.12-rt', 'debian-6.1-amd64', 'debian-6.12-amd64']) {
    if (cached.has(kernel)) VARIANTS.push({ kernel, interrupts: true, way: 'as it boots' });
  }
}

for (const { kernel, interrupts, way, ...options } of VARIANTS) {
  test.serial(`${kernel} ${way}: splice and state at random moments`, async (t) => {
    t.timeout(900_000 + 3_000 * CYCLES);
    const programs = [...targets, ...others];
    await using guest = await bootDebian({ ...options, kernel, programs });
    const sockets = interrupts ? guest.sockets : { qmp: guest.sockets.qmp };
    await using domain = await QemuDomain.attach(sockets, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    await goesOn(t, guest, Object.fromEntries(programs.map(({ name }) => [name, 0])));
    const { processes } = await attached.take();
    const table = new CycleTable();
    for (let round = 0; round < CYCLES; round++) {
      const technique = round % 2 === 0 ? ('splice' as const) : ('state' as const);
      const chosen = pick(targets, round % 6 < 2 ? 2 : 1).map(({ name }) => findProcess(processes, name));
      // Long enough now and then for the guest to take a group's empty queue off its list.
      const stillMs = round % 20 >= 18 ? 2_000 : 100;
      await cycle(t, guest, surgeon, chosen, table, { technique, stillMs });
    }
    await goesOn(t, guest, await guest.progress(...programs.map(({ name }) => name)));
    const fair = new FairSurgery(fairGuest(attached));
    for (const invariant of fair.invariants()) {
      for (const end = Date.now() + PATIENCE_MS; ; await sleep(3)) {
        await using _pause = await domain.pause!.acquire();
        try {
          invariant.check(new Draft(attached.space));
          break;
        } catch (error) {
          // The guest's own kernel may be in the middle of an edit.
          if (Date.now() > end) throw error;
        }
      }
    }
    t.true((await attached.take({ pause: true })).exact);
    guest.checkConsole();
    for (const line of table.lines()) t.log(line);
    attached.detach();
  });
}
