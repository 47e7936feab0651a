/** Holds and releases of a live Debian guest's programs at random moments, and the figures of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import type { Process } from '../../runtime/guest/process.ts';
import type { Technique } from '../../runtime/surgery/holder.ts';
import type { Operation, Surgeon } from '../../runtime/surgery/surgeon.ts';
import type { LiveGuest } from './guest.ts';

/** Wall time in which a guest on a busy host surely gets somewhere. */
export const PATIENCE_MS = 120_000;

/** What is to be held, and how; null for what the surgeon takes by itself. */
export interface Target {
  readonly process: Process;
  readonly technique: Technique | null;
}

/**
 * Holds programs, sees that all of them stand still for a while of up to `stillMs`, lets them go in another order and
 * sees that they all go on.
 */
export async function round(
  t: ExecutionContext,
  guest: LiveGuest,
  surgeon: Surgeon,
  targets: readonly Target[],
  table: CycleTable,
  stillMs = 100,
): Promise<void> {
  for (const { process, technique } of targets) {
    const options = { limitMs: PATIENCE_MS, ...(technique !== null && { techniques: [technique] }) };
    const held = await surgeon.hold(process, options);
    if (held.outcome !== 'held') t.fail(`${process.comm}: ${held.outcome}`);
    if (technique !== null) t.deepEqual(held.techniques, [technique]);
    table.add('hold', held);
  }
  const names = targets.map(({ process }) => process.comm);
  const before = await guest.progress(...names);
  await sleep(Math.random() * stillMs);
  t.deepEqual(await guest.progress(...names), before, 'what is held makes no progress');
  for (const { process } of pick(targets, targets.length)) {
    const released = await surgeon.release(process, { limitMs: PATIENCE_MS });
    if (released.outcome !== 'released') t.fail(`${process.comm}: ${released.outcome}`);
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

/** Holds after which a soak says how far it is. */
const REPORT_EVERY = 1_000;

/** Figures by technique and direction. */
export class CycleTable {
  readonly #name: string;
  readonly #rows = new Map<string, Pick<Operation, 'attempts' | 'pausedUs'>[]>();
  /** Holds so far. */
  holds = 0;

  constructor(name: string) {
    this.#name = name;
  }

  add(direction: 'hold' | 'release', operation: Operation): void {
    if (direction === 'hold') this.holds += 1;
    const key = `${operation.techniques.join('+')} ${direction}`;
    const row = this.#rows.get(key) ?? [];
    row.push({ attempts: operation.attempts, pausedUs: operation.pausedUs });
    this.#rows.set(key, row);
    if (direction === 'hold' && this.holds % REPORT_EVERY === 0)
      for (const line of this.lines()) console.log(`# ${this.#name}, ${this.holds} holds: ${line}`);
  }

  lines(): string[] {
    return [...this.#rows].map(([key, operations]) => {
      const first = operations.filter(({ attempts }) => attempts === 1).length;
      const sorted = operations.map(({ pausedUs }) => pausedUs).sort((a, b) => a - b);
      const at = (share: number) => Math.round(sorted[Math.floor(share * (sorted.length - 1))]!);
      const attempts = operations.reduce((sum, operation) => sum + operation.attempts, 0) / operations.length;
      return (
        `${key}: ${operations.length}, ${first} in one pause, ${attempts.toFixed(1)} pauses on average, ` +
        `paused µs p50 ${at(0.5)} p90 ${at(0.9)} p99 ${at(0.99)} max ${at(1)}`
      );
    });
  }
}
