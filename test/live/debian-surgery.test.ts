/**
 * Holds and releases processes of live Debian guests at random moments, by all techniques, several at once: what is
 * held makes no progress, what is released goes on, no program sees an error, the guest's queues are whole, and its
 * console stays clean. DOMSCHED_CYCLES=10000 is a soak.
 */
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { cachedKernels } from '../../kernels/cache.ts';
import { Draft } from '../../runtime/edit/draft.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import type { Domain } from '../../runtime/hypervisor/types.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { fairGuest } from '../../runtime/surgeon/fair-holder.ts';
import { holderFor } from '../../runtime/surgeon/holder-for.ts';
import { constantsOf } from '../../runtime/surgeon/proved-constants.ts';
import { Surgeon } from '../../runtime/surgeon/surgeon.ts';
import { FairSurgery } from '../../runtime/technique/fair/fair.ts';
import type { Technique } from '../../runtime/technique/step.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { Cycles, CycleTable, findProcess, goesOn, PATIENCE_MS, pick } from './cycles.ts';
import { bootDebian } from './guest.ts';
import type { GuestProgram } from './initramfs.ts';

/** Holds, and as many releases, of each guest. */
const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 45);

/** What runs most of the time in user mode: only such a thread can be taken out of a queue, or told to leave it. */
const steady: readonly GuestProgram[] = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
  { kind: 'burner', name: 'burner-c' },
  { kind: 'burner', name: 'burner-d', nice: 5 },
  { kind: 'faults', name: 'faults-a' },
  { kind: 'unmaps', name: 'unmaps-a' },
];
/** What sleeps, or is in the kernel for the most part. */
const lively: readonly GuestProgram[] = [
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
  { kind: 'forker', name: 'forker-a' },
  { kind: 'files', name: 'files-a' },
  { kind: 'disk', name: 'disk-a' },
  { kind: 'tcp', name: 'tcp-a' },
  { kind: 'calls', name: 'calls-a' },
];
/** Of each at once, at most: what is left must keep both CPUs busy, or nothing is ever ready. */
const AT_ONCE = 3;

/** A group in a group, with queues of their own. */
const GROUPS = `
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/a/b
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
echo +cpu >/sys/fs/cgroup/a/cgroup.subtree_control
`;
/** The outer one is throttled again and again. */
const LIMITED = `${GROUPS}
echo 120000 100000 >/sys/fs/cgroup/a/cpu.max
`;

interface SurgeryVariant {
  kernel: string;
  way: string;
  /** `max` has 5-level paging, `qemu64` 4 levels and page-table isolation. */
  cpu: 'max' | 'qemu64';
  /** Without them everything waits for the guest's own ticks. */
  interrupts: boolean;
  /** It is found and paused by its process: nobody asks its monitor, so that no register is known, and park alone can be. */
  byProcess?: boolean;
  cpus?: number;
  setup?: string;
  /** Which programs start in the inner group; the others are where init is. */
  grouped?: 'all' | 'every second';
  sessions?: boolean;
  append?: string;
}

/** So that a kernel that complains in a soak says on its console where it was. */
const VERBOSE = process.env.DOMSCHED_CYCLES === undefined ? '' : 'loglevel=7';

const cfs = { kernel: 'debian-6.1-cloud', cpu: 'max', interrupts: true } as const;
const eevdf = { kernel: 'debian-6.12-cloud', cpu: 'max', interrupts: true } as const;
const VARIANTS: SurgeryVariant[] = [
  { ...cfs, way: 'as it boots' },
  { ...eevdf, way: 'as it boots' },
  {
    kernel: 'debian-6.12-cloud',
    way: 'in autogroups and a group of a group, by ticks alone',
    cpu: 'qemu64',
    interrupts: false,
    setup: GROUPS,
    grouped: 'every second',
    sessions: true,
  },
  { ...cfs, way: 'with full preemption', append: 'preempt=full' },
];
/** The long form: these differ from one above in one thing. PREEMPT_RT has other locks and layouts. */
if (process.env.DOMSCHED_CYCLES !== undefined) {
  VARIANTS.push(
    { ...cfs, way: 'by ticks alone', cpu: 'qemu64', interrupts: false },
    { ...eevdf, way: 'on four CPUs', cpus: 4 },
    { ...eevdf, way: 'with full preemption', append: 'preempt=full' },
    { ...cfs, way: 'in groups that run out of time', setup: LIMITED, grouped: 'all' },
    { ...eevdf, way: 'in groups that run out of time', setup: LIMITED, grouped: 'all' },
    { ...cfs, way: 'by its process', byProcess: true },
    { ...eevdf, way: 'by its process', byProcess: true },
  );
  const cached = new Set(cachedKernels().map(({ id }) => id));
  for (const kernel of ['debian-6.1-rt', 'debian-6.12-rt', 'debian-6.1-amd64', 'debian-6.12-amd64']) {
    if (cached.has(kernel)) VARIANTS.push({ ...cfs, kernel, way: 'as it boots' });
  }
}

for (const { way, interrupts, grouped, byProcess, ...options } of VARIANTS) {
  test.serial(`${options.kernel} ${way}: hold and release at random moments`, async (t) => {
    t.timeout(900_000 + 3_000 * CYCLES);
    const programs = [...steady, ...lively].map((program, index) =>
      grouped === 'all' || (grouped === 'every second' && index % 2 === 0)
        ? { ...program, cgroup: 'a/b' }
        : program,
    );
    await using guest = await bootDebian({
      ...options,
      append: `${options.append ?? ''} ${VERBOSE}`,
      programs,
      disk: true,
      shellNice: -10,
      ...(byProcess && { extra: ['-name', 'debug-threads=on'] }),
    });
    await using host = byProcess ? await connect(`pid:${guest.process.pid}`) : null;
    const sockets = interrupts ? guest.sockets : { qmp: guest.sockets.qmp };
    await using domain: Domain = host
      ? await host.open(host.ids()[0]!)
      : await QemuDomain.attach(sockets, guest.connection);
    requireCapabilities(domain, 'pause', 'writeFrames');
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    await goesOn(t, guest, Object.fromEntries(programs.map(({ name }) => [name, 0])));
    const processes = await processesOf(attached);
    const table = new CycleTable(`${options.kernel} ${way}`);
    const nameOf = ({ name }: GuestProgram) => name;
    using cycles = new Cycles(t, guest, surgeon, table, programs.map(nameOf), steady.map(nameOf));
    const techniques = takingTurns(byProcess ? ['park'] : ['splice', 'state', 'splice', 'state', 'park']);
    for (let rounds = 0; table.holds < CYCLES; rounds++) {
      const some = () => Math.floor(Math.random() * AT_ONCE);
      const targets = [
        ...pick(steady, 1 + some()).map(({ name }) => ({ name, technique: techniques() })),
        ...pick(lively, some()).map(({ name }) => ({ name, technique: null })),
      ].map(({ name, technique }) => ({ process: findProcess(processes, name), technique }));
      // Long enough now and then for the guest to take a group's empty queue off its list.
      await cycles.round(targets, rounds % 40 === 39 ? 2_000 : 10);
    }
    await cycles.end();
    await goesOn(t, guest, await guest.progress(...programs.map(nameOf)));
    const constants = constantsOf(attached);
    const { wayOut } = constants;
    if (typeof wayOut === 'string') throw new Error(wayOut);
    const fair = new FairSurgery(fairGuest(attached, constants, wayOut));
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
    // Every queue's counters are what is linked in it: a look that is not so is none.
    t.true((await attached.take({ pause: true })).exact);
    guest.checkConsole();
    for (const line of table.lines()) t.log(line);
    attached.detach();
  });
}

/** One after the other. */
function takingTurns(techniques: readonly Technique[]): () => Technique {
  let turn = 0;
  return () => techniques[turn++ % techniques.length]!;
}
