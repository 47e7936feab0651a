/** Holds and releases of a live Debian guest's programs at random moments, and the figures of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import type { Process } from '../../runtime/guest/process.ts';
import type { Technique } from '../../runtime/surgery/holder.ts';
import type { Operation, Surgeon } from '../../runtime/surgery/surgeon.ts';
import type { LiveGuest } from './guest.ts';

/** Wall time in which a guest on a busy host surely gets somewhere. */
export const PATIENCE_MS = 120_000;

/** Everything runs in a group of a group. */
export const TWO_LEVELS = `
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/a/b
echo +cpu >/sys/fs/cgroup/cgroup.subtree_control
echo +cpu >/sys/fs/cgroup/a/cgroup.subtree_control
echo $$ >/sys/fs/cgroup/a/b/cgroup.procs
`;

/**
 * Holds programs, sees that they stand still for a while of up to `stillMs`, lets them go and sees that they go on.
 * @param technique null for what the surgeon takes by itself
 */
export async function cycle(
  t: ExecutionContext,
  guest: LiveGuest,
  surgeon: Surgeon,
  targets: readonly Process[],
  table: CycleTable,
  { technique = null, stillMs = 100 }: { technique?: Technique | null; stillMs?: number } = {},
): Promise<void> {
  const options = { limitMs: PATIENCE_MS, ...(technique !== null && { techniques: [technique] }) };
  for (const target of targets) {
    const held = await surgeon.hold(target, options);
    t.is(held.outcome, 'held', target.comm);
    if (technique !== null) t.deepEqual(held.techniques, [technique]);
    table.add('hold', held);
  }
  const names = targets.map(({ comm }) => comm);
  const before = await guest.progress(...names);
  await sleep(Math.random() * stillMs);
  t.deepEqual(await guest.progress(...names), before, 'what is held makes no progress');
  for (const target of targets) {
    const released = await surgeon.release(target, { limitMs: PATIENCE_MS });
    t.is(released.outcome, 'released', target.comm);
    table.add('release', released);
  }
  await goesOn(t, guest, before);
  guest.checkConsole();
}

/** Waits until every program has counted on from where it was. */
export async function goesOn(
  t: ExecutionContext,
  guest: Pick<LiveGuest, 'name' | 'progress'>,
  before: Record<string, number>,
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const waiting = new Set(Object.keys(before));
  for (const end = Date.now() + patienceMs; waiting.size > 0; await sleep(20)) {
    const now = await guest.progress(...waiting);
    for (const name of waiting) if (now[name]! > before[name]!) waiting.delete(name);
    if (waiting.size === 0 || Date.now() < end) continue;
    t.fail(`${guest.name}: no progress of ${[...waiting].join(', ')} within ${patienceMs} ms`);
    return;
  }
}

export function findProcess(processes: readonly Process[], name: string): Process {
  // The child of a pair has another name; forks of the forker have its name but not for long.
  const found = processes.filter(({ comm }) => comm === name).sort((a, b) => a.pid - b.pid)[0];
  if (found === undefined) throw new Error(`the guest has no ${name}`);
  return found;
}

export function pick<T>(from: readonly T[], count: number): T[] {
  const left = [...from];
  return Array.from({ length: count }, () => left.splice(Math.floor(Math.random() * left.length), 1)[0]!);
}

/** Figures by technique and direction. */
export class CycleTable {
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
