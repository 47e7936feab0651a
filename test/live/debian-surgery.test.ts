/**
 * Parks and releases processes of live Debian guests at random moments: what is held makes no progress, what is
 * released goes on, no program sees an error, and the guest's console stays clean. DOMSCHED_CYCLES=10000 is a soak.
 */
import process from 'node:process';
import test from 'ava';
import { cachedKernels } from '../../kernels/cache.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgery/holder-for.ts';
import { Surgeon } from '../../runtime/surgery/surgeon.ts';
import { CycleTable, cycle, findProcess, goesOn, pick, TWO_LEVELS } from './cycles.ts';
import { bootDebian } from './guest.ts';
import type { GuestProgram } from './initramfs.ts';

const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 25);

const everywhere: readonly GuestProgram[] = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
  { kind: 'forker', name: 'forker-a' },
  { kind: 'faults', name: 'faults-a' },
  { kind: 'files', name: 'files-a' },
  { kind: 'tcp', name: 'tcp-a' },
];

interface Variant {
  kernel: string;
  cpu: string;
  interrupts: boolean;
  /** A disk, where the kernel has the driver built in. */
  disk: boolean;
  setup?: string;
  append?: string;
}

const VARIANTS: Variant[] = [
  { kernel: 'debian-6.1-cloud', cpu: 'max', interrupts: true, disk: true },
  { kernel: 'debian-6.12-cloud', cpu: 'qemu64', interrupts: false, disk: false, setup: TWO_LEVELS },
  { kernel: 'debian-6.12-cloud', cpu: 'max', interrupts: true, disk: true },
  { kernel: 'debian-6.1-cloud', cpu: 'qemu64', interrupts: false, disk: false, append: 'preempt=full' },
];
/** The long form takes in the other flavours that were fetched: PREEMPT_RT has other locks and layouts. */
if (process.env.DOMSCHED_CYCLES !== undefined) {
  const cached = new Set(cachedKernels().map(({ id }) => id));
  for (const kernel of ['debian-6.1-rt', 'debian-6.12-rt', 'debian-6.1-amd64', 'debian-6.12-amd64']) {
    if (cached.has(kernel)) VARIANTS.push({ kernel, cpu: 'max', interrupts: true, disk: false });
  }
}

for (const variant of VARIANTS) {
  const way = [
    variant.interrupts ? 'with interrupts' : 'by ticks alone',
    variant.append ?? '',
    variant.setup ? 'in nested groups' : '',
    variant.disk ? 'with a disk' : '',
  ]
    .filter(Boolean)
    .join(', ');
  test.serial(`${variant.kernel} ${way}: park and release at random moments`, async (t) => {
    t.timeout(900_000 + 2_000 * CYCLES);
    const programs = variant.disk ? [...everywhere, { kind: 'disk', name: 'disk-a' } as const] : everywhere;
    await using guest = await bootDebian({ ...variant, programs });
    const sockets = variant.interrupts ? guest.sockets : { qmp: guest.sockets.qmp };
    await using domain = await QemuDomain.attach(sockets, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    await goesOn(t, guest, Object.fromEntries(programs.map(({ name }) => [name, 0])));
    const { processes } = await attached.take();
    const table = new CycleTable();
    for (let round = 0; round < CYCLES; round++) {
      const targets = pick(programs, round % 7 === 6 ? 3 : 1).map(({ name }) => findProcess(processes, name));
      await cycle(t, guest, surgeon, targets, table);
    }
    await goesOn(t, guest, await guest.progress(...programs.map(({ name }) => name)));
    // Every queue's counters are what is linked in it: a look that is not so is none.
    t.true((await attached.take({ pause: true })).exact);
    guest.checkConsole();
    for (const line of table.lines()) t.log(line);
    attached.detach();
  });
}
