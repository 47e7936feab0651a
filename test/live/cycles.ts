/** Holds and releases of a live Debian guest's programs at random moments, and the figures of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { DomschedError } from '../../runtime/error.ts';
import type { Process } from '../../runtime/guest/process.ts';
import type { Operation, Surgeon } from '../../runtime/surgeon/surgeon.ts';
import type { Technique } from '../../runtime/technique/step.ts';
import type { LiveGuest } from './guest.ts';
import { GuestCounters } from './guest-counters.ts';
import { until } from './until.ts';

/** Wall time in which a guest on a busy host surely gets somewhere. */
export const PATIENCE_MS = 120_000;

/** What is to be held, and how; null for what the surgeon takes by itself. */
export interface HoldTarget {
  readonly process: Process;
  readonly technique: Technique | null;
  /** It counts nothing, may have ended before it is held, and what it does is checked elsewhere. */
  readonly mayEnd?: true;
}

/** How often the guest's own word is asked for, in rounds: it takes longer than all else of a round. */
const ASK_EVERY = 10;
/** How long the programs' pages are waited on before they are looked for again. */
const FIND_AGAIN_MS = 10_000;
const LOOK_MS = 3;

/** Rounds of holds and releases on one guest, watched by what its programs count in its memory. */
export class Cycles implements Disposable {
  readonly table: CycleTable;
  readonly #t: ExecutionContext;
  readonly #guest: LiveGuest;
  readonly #surgeon: Surgeon;
  readonly #counters: GuestCounters;
  readonly #pacers: readonly string[];
  /** What was released and has not been seen to go on: where each stood. */
  readonly #released = new Map<string, number>();
  #rounds = 0;
  /** Holds so far of what may end. */
  passing = 0;

  /**
   * @param names programs that may be held
   * @param pacers those of them that run most of the time, at least two more than are ever held at once
   */
  constructor(
    t: ExecutionContext,
    guest: LiveGuest,
    surgeon: Surgeon,
    table: CycleTable,
    names: readonly string[],
    pacers: readonly string[],
  ) {
    this.#t = t;
    this.#guest = guest;
    this.#surgeon = surgeon;
    this.table = table;
    this.#counters = new GuestCounters(guest, names);
    this.#pacers = pacers;
  }

  /**
   * Holds programs, each of which has gone on since its last release, all at once; sees that all of them stand still while every
   * pacer that is not held gets its turn, and what was released before goes on; lets them go in another order.
   * @param stillMs how long they are held beyond that, at most
   */
  async round(all: readonly HoldTarget[], stillMs = 10): Promise<void> {
    const targets = all.filter(({ mayEnd }) => mayEnd === undefined);
    const passing = await this.#holdPassing(all.filter(({ mayEnd }) => mayEnd));
    for (const { process, technique } of targets) {
      await this.#goneOn([process.comm]);
      const options = { limitMs: PATIENCE_MS, ...(technique !== null && { techniques: [technique] }) };
      const held = await this.table.time('hold', () => this.#surgeon.hold(process, options));
      if (held.outcome !== 'held') this.#t.fail(`${process.comm}: ${held.outcome}`);
      if (technique !== null) this.#t.deepEqual(held.techniques, [technique]);
    }
    const names = targets.map(({ process }) => process.comm);
    const before = this.#counters.progress(...names);
    await this.#goneOn([...this.#released.keys()]);
    const free = this.#pacers.filter((name) => !names.includes(name));
    await this.#moved(this.#counters.progress(...free));
    await sleep(Math.random() * stillMs);
    this.#t.deepEqual(this.#counters.progress(...names), before, 'what is held makes no progress');
    this.#rounds += 1;
    if (names.length > 0 && this.#rounds % ASK_EVERY === 0) await this.#agrees(names);
    for (const { process, mayEnd } of pick([...targets, ...passing], targets.length + passing.length)) {
      const release = () => this.#surgeon.release(process, { limitMs: PATIENCE_MS });
      const released = await (mayEnd ? release() : this.table.time('release', release));
      if (released.outcome !== 'released') this.#t.fail(`${process.comm}: ${released.outcome}`);
      if (!mayEnd) this.#released.set(process.comm, before[process.comm]!);
    }
    this.#guest.checkConsole();
  }

  /** @returns those that were held before they ended */
  async #holdPassing(targets: readonly HoldTarget[]): Promise<HoldTarget[]> {
    const held: HoldTarget[] = [];
    for (const target of targets) {
      const hold = this.#surgeon.hold(target.process, { limitMs: PATIENCE_MS });
      const operation = await hold.catch((error: unknown) => {
        const hasEnded = error instanceof DomschedError && error.code === 'process-not-found';
        if (hasEnded || (error instanceof DomschedError && error.details.exiting === true)) return null;
        throw error;
      });
      if (operation?.outcome === 'held') held.push(target);
    }
    this.passing += held.length;
    return held;
  }

  /** Waits until everything that was released has gone on. */
  async end(): Promise<void> {
    await this.#goneOn([...this.#released.keys()]);
    this.#guest.checkConsole();
  }

  [Symbol.dispose](): void {
    this.#counters[Symbol.dispose]();
  }

  async #goneOn(names: readonly string[]): Promise<void> {
    const stood = names.filter((name) => this.#released.has(name));
    await this.#moved(Object.fromEntries(stood.map((name) => [name, this.#released.get(name)!])));
    for (const name of stood) this.#released.delete(name);
  }

  async #moved(from: Record<string, number>): Promise<void> {
    const waiting = new Set(Object.keys(from));
    const begin = Date.now();
    for (let findAt = begin + FIND_AGAIN_MS; ; await sleep(LOOK_MS)) {
      const now = this.#counters.progress(...waiting);
      for (const name of waiting) if (now[name]! > from[name]!) waiting.delete(name);
      if (waiting.size === 0) return;
      if (Date.now() > findAt) {
        this.#counters.find();
        findAt = Date.now() + FIND_AGAIN_MS;
      }
      if (Date.now() > begin + PATIENCE_MS) {
        this.#t.fail(`${this.#guest.name}: no progress of ${[...waiting].join(', ')}`);
        return;
      }
    }
  }

  /** What stands still by its memory does so by the guest's own word. */
  async #agrees(names: readonly string[]): Promise<void> {
    const own = await this.#guest.progress(...names);
    // The guest's kernel may move a page.
    if (names.some((name) => this.#counters.progress(name)[name] !== own[name])) this.#counters.find();
    this.#t.deepEqual(
      this.#counters.progress(...names),
      own,
      'the pages are those that the programs count in',
    );
  }
}

/** Waits until each of these programs has done more than it has now. */
export async function runsOn(guest: LiveGuest, ...names: readonly string[]): Promise<void> {
  const before = await guest.progress(...names);
  await until(`${guest.name}: ${names} go on`, async () => {
    const now = await guest.progress(...names);
    return names.every((name) => now[name]! > before[name]!);
  });
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

interface Figures extends Pick<Operation, 'attempts' | 'pausedUs'> {
  /** From the call to its return. */
  readonly ms: number;
}

/** Figures by technique and direction. */
export class CycleTable {
  readonly #name: string;
  readonly #rows = new Map<string, Figures[]>();
  /** Holds so far. */
  holds = 0;

  constructor(name: string) {
    this.#name = name;
  }

  /** Performs an operation and takes down how it went. */
  async time(direction: 'hold' | 'release', operate: () => Promise<Operation>): Promise<Operation> {
    const begin = performance.now();
    const operation = await operate();
    const { attempts, pausedUs } = operation;
    if (direction === 'hold') this.holds += 1;
    const key = `${operation.techniques.join('+')} ${direction}`;
    const row = this.#rows.get(key) ?? [];
    row.push({ attempts, pausedUs, ms: performance.now() - begin });
    this.#rows.set(key, row);
    if (direction === 'hold' && this.holds % REPORT_EVERY === 0)
      for (const line of this.lines()) console.log(`# ${this.#name}, ${this.holds} holds: ${line}`);
    return operation;
  }

  lines(): string[] {
    return [...this.#rows].map(([key, operations]) => {
      const first = operations.filter(({ attempts }) => attempts === 1).length;
      const attempts = operations.reduce((sum, operation) => sum + operation.attempts, 0) / operations.length;
      return (
        `${key}: ${operations.length}, ${first} in one pause, ${attempts.toFixed(1)} pauses on average, ` +
        `paused µs ${percentiles(operations.map(({ pausedUs }) => pausedUs))}, ` +
        `in all ms ${percentiles(operations.map(({ ms }) => ms))}`
      );
    });
  }
}

function percentiles(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.floor(share * (sorted.length - 1))]!);
  return `p50 ${at(0.5)} p90 ${at(0.9)} p99 ${at(0.99)} max ${at(1)}`;
}
