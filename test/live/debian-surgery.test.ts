/**
 * Parks and releases processes of live Debian guests at random moments: what is held makes no progress, what is
 * released goes on, no program sees an error, and the guest's console stays clean. DOMSCHED_CYCLES=10000 is a soak.
 */
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { cachedKernels } from '../../kernels/cache.ts';
import { Guest } from '../../runtime/guest/guest.ts';
import type { Process } from '../../runtime/guest/process.ts';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { holderFor } from '../../runtime/surgery/holder-for.ts';
import { type Operation, Surgeon } from '../../runtime/surgery/surgeon.ts';
import { bootDebian, type LiveGuest } from './guest.ts';

const CYCLES = Number(process.env.DOMSCHED_CYCLES ?? 25);
/** Wall time in which a guest on a busy host surely gets somewhere. */
const PATIENCE_MS = 30_000;

const programs = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-b' },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'pipe', name: 'pipe-a' },
  { kind: 'threads', name: 'threads-a' },
  { kind: 'forker', name: 'forker-a' },
  { kind: 'faults', name: 'faults-a' },
  { kind: 'files', name: 'files-a' },
] as const;

/** Everything runs in a group of a group. */
const twoLevels = `
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/a/b
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
echo +cpu >/sys/fs/cgroup/a/cgroup.subtree_control
echo $$ >/sys/fs/cgroup/a/b/cgroup.procs
`;

interface Variant {
  kernel: string;
  cpu: string;
  interrupts: boolean;
  setup?: string;
  append?: string;
}

const VARIANTS: Variant[] = [
  { kernel: 'debian-6.1-cloud', cpu: 'max', interrupts: true },
  { kernel: 'debian-6.12-cloud', cpu: 'qemu64', interrupts: false, setup: twoLevels },
  { kernel: 'debian-6.12-cloud', cpu: 'max', interrupts: true },
  { kernel: 'debian-6.1-cloud', cpu: 'qemu64', interrupts: false, append: 'preempt=full' },
];
/** The long form takes in the other flavours that were fetched: PREEMPT_RT has other locks and layouts. */
if (process.env.DOMSCHED_CYCLES !== undefined) {
  const cached = new Set(cachedKernels().map(({ id }) => id));
  for (const kernel of ['debian-6.1-rt', 'debian-6.12-rt', 'debian-6.1-amd64', 'debian-6.12-amd64']) {
    if (cached.has(kernel)) VARIANTS.push({ kernel, cpu: 'max', interrupts: true });
  }
}

for (const variant of VARIANTS) {
  const way = [
    variant.interrupts ? 'with interrupts' : 'by ticks alone',
    variant.append ?? '',
    variant.setup ? 'in nested groups' : '',
  ]
    .filter(Boolean)
    .join(', ');
  test.serial(`${variant.kernel} ${way}: park and release at random moments`, async (t) => {
    t.timeout(240_000 + 2_000 * CYCLES);
    await using guest = await bootDebian({ ...variant, programs });
    const sockets = variant.interrupts ? guest.sockets : { qmp: guest.sockets.qmp };
    await using domain = await QemuDomain.attach(sockets, guest.connection);
    const attached = await Guest.attach(domain, await knownKernels());
    const surgeon = new Surgeon(domain, attached, holderFor(attached));
    await goesOn(t, guest, Object.fromEntries(programs.map(({ name }) => [name, 0])));
    const { processes } = await attached.take();
    const table = new Table();
    for (let cycle = 0; cycle < CYCLES; cycle++) {
      const targets = pick(programs, cycle % 7 === 6 ? 3 : 1).map(({ name }) => find(processes, name));
      for (const target of targets) {
        const held = await surgeon.hold(target, { limitMs: PATIENCE_MS });
        t.is(held.outcome, 'held', target.comm);
        table.add('hold', held);
      }
      const names = targets.map(({ comm }) => comm);
      const before = await guest.progress(...names);
      await sleep(Math.random() * 100);
      t.deepEqual(await guest.progress(...names), before, 'what is held makes no progress');
      for (const target of targets) {
        const released = await surgeon.release(target, { limitMs: PATIENCE_MS });
        t.is(released.outcome, 'released', target.comm);
        table.add('release', released);
      }
      await goesOn(t, guest, before);
      guest.checkConsole();
    }
    const all = await guest.progress(...programs.map(({ name }) => name));
    await goesOn(t, guest, all);
    guest.checkConsole();
    for (const line of table.lines()) t.log(line);
    attached.detach();
  });
}

async function goesOn(t: ExecutionContext, guest: LiveGuest, before: Record<string, number>): Promise<void> {
  const waiting = new Set(Object.keys(before));
  for (const end = Date.now() + PATIENCE_MS; waiting.size > 0; await sleep(20)) {
    const now = await guest.progress(...waiting);
    for (const name of waiting) if (now[name]! > before[name]!) waiting.delete(name);
    if (waiting.size === 0 || Date.now() < end) continue;
    t.fail(`${[...waiting].join(', ')}: no progress within ${PATIENCE_MS} ms of the release`);
    return;
  }
}

function find(processes: readonly Process[], name: string): Process {
  // The child of the pipe pair has another name; forks of the forker have its name but not for long.
  const found = processes.filter(({ comm }) => comm === name).sort((a, b) => a.pid - b.pid)[0];
  if (found === undefined) throw new Error(`the guest has no ${name}`);
  return found;
}

function pick<T>(from: readonly T[], count: number): T[] {
  const left = [...from];
  return Array.from({ length: count }, () => left.splice(Math.floor(Math.random() * left.length), 1)[0]!);
}

/** Figures by technique and direction. */
class Table {
  readonly #rows = new Map<string, Pick<Operation, 'attempts' | 'pausedUs'>[]>();

  add(direction: string, operation: Operation): void {
    const key = `${operation.techniques.join('+')} ${direction}`;
    const row = this.#rows.get(key) ?? [];
    row.push({ attempts: operation.attempts, pausedUs: operation.pausedUs });
    this.#rows.set(key, row);
  }

  lines(): string[] {
    return [...this.#rows].map(([key, operations]) => {
      const first = operations.filter(({ attempts }) => attempts === 1).length;
      const sorted = operations.map(({ pausedUs }) => pausedUs).sort((a, b) => a - b);
      const at = (share: number) => Math.round(sorted[Math.floor(share * (sorted.length - 1))]!);
      const attempts = operations.reduce((sum, operation) => sum + operation.attempts, 0) / operations.length;
      return `${key}: ${operations.length} cycles, ${first} in one pause, ${attempts.toFixed(1)} pauses on average, paused µs p50 ${at(0.5)} p90 ${at(0.9)} max ${at(1)}`;
    });
  }
}
