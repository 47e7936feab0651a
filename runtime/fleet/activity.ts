import { printable } from '../guest/text.ts';
import type { DomainView, ProcessView } from '../policy/world.ts';

/** Processes of one host that the same selectors match: what policies would treat alike. */
export interface ActivityClass {
  /** Names of those selectors, sorted. */
  readonly matched: readonly string[];
  /** A first process of a guest, which no policy may touch. */
  readonly first: boolean;
  /** Part of a CPU that the busiest of them used, as one of the levels. */
  readonly share: number;
  /** One of them waits for a CPU at this look and the one before. */
  readonly waits: boolean;
  /** The busiest of them when this class was last told, for people. Safe to print. */
  readonly who: Who;
}

export interface Who {
  readonly domain: string;
  readonly comm: string;
  readonly pid: number;
}

/** A class with what makes it another one. */
type Classes = Map<string, ActivityClass>;

/** Parts of a CPU that hosts tell each other; less than the first is told as nothing. */
const LEVELS = [0.001, 0.01, 0.1, 1];
/** Most classes of a host; the least busy are left out. */
export const MOST_CLASSES = 64;
/** What has become less is told after it has stayed so for this long: who works in bursts is one change, not many. */
const STEADY_MS = 1_000;
const LONGEST_NAME = 64;

/** What one look found. */
export interface Looked {
  readonly classes: readonly ActivityClass[];
  /** Keys of processes that waited for a CPU; input of the next look. */
  readonly waiting: ReadonlySet<string>;
}

/**
 * Sums up what the processes of this host did since the last look, by what selectors say of them.
 * @param match names of the selectors that match a process
 * @param thresholds parts of a CPU from which policies count a process as busy: levels too
 */
export function aggregate(
  domains: readonly DomainView[],
  elapsedMs: number,
  match: (process: ProcessView) => readonly string[],
  thresholds: readonly number[],
  before: ReadonlySet<string>,
): Looked {
  const levels = [...new Set([...LEVELS, ...thresholds])].filter((level) => level > 0).sort((a, b) => a - b);
  const classes = new Map<string, ActivityClass & { readonly exact: number }>();
  const waiting = new Set<string>();
  for (const { processes } of domains) {
    for (const process of processes) {
      if (process.kernelThread || process.elsewhere) continue;
      const isWaiting = process.state === 'running' || process.state === 'ready';
      if (isWaiting) waiting.add(process.key);
      const exact = elapsedMs > 0 && process.state !== 'held' ? process.ranNs / 1e6 / elapsedMs : 0;
      const share = levels.findLast((level) => level <= exact) ?? 0;
      const waits = isWaiting && before.has(process.key);
      if (share === 0 && !waits) continue;
      const matched = match(process);
      const first = process.pid <= 1;
      const key = keyOf({ matched, first });
      const had = classes.get(key);
      classes.set(key, {
        matched,
        first,
        share: Math.max(share, had?.share ?? 0),
        waits: waits || (had?.waits ?? false),
        who: had === undefined || exact > had.exact ? whoIs(process) : had.who,
        exact: Math.max(exact, had?.exact ?? 0),
      });
    }
  }
  const busiest = [...classes.values()].sort((a, b) => b.exact - a.exact).slice(0, MOST_CLASSES);
  return { classes: busiest.map(({ exact: _, ...one }) => one), waiting };
}

function whoIs({ domainName, comm, pid }: ProcessView): Who {
  return { domain: printable(domainName).slice(0, LONGEST_NAME), comm: comm.slice(0, LONGEST_NAME), pid };
}

export function keyOf({ matched, first }: Pick<ActivityClass, 'matched' | 'first'>): string {
  return `${first ? 1 : 0} ${matched.join(' ')}`;
}

/** What others were told, and since when a class is lower than that. */
export type Told = ReadonlyMap<string, { readonly told: ActivityClass; readonly lowerMs?: number }>;

/**
 * Decides what to tell others. More is told at once, less after {@link STEADY_MS}.
 * @returns `changed` if there is something to tell
 */
export function settle(
  before: Told,
  classes: readonly ActivityClass[],
  nowMs: number,
): { told: Told; changed: boolean } {
  const now: Classes = new Map(classes.map((one) => [keyOf(one), one]));
  const told = new Map<string, { told: ActivityClass; lowerMs?: number }>();
  let changed = false;
  for (const [key, one] of now) {
    const had = before.get(key)?.told;
    if (had !== undefined && one.share <= had.share && (had.waits || !one.waits)) continue;
    changed = true;
    const more = { share: Math.max(one.share, had?.share ?? 0), waits: one.waits || (had?.waits ?? false) };
    told.set(key, { told: { ...one, ...more } });
  }
  for (const [key, entry] of before) {
    if (told.has(key)) continue;
    const one = now.get(key);
    const { share, waits } = entry.told;
    if (one !== undefined && one.share === share && one.waits === waits) {
      told.set(key, { told: entry.told });
      continue;
    }
    const lowerMs = entry.lowerMs ?? nowMs;
    if (nowMs - lowerMs < STEADY_MS) told.set(key, { told: entry.told, lowerMs });
    else {
      changed = true;
      if (one !== undefined) told.set(key, { told: one });
    }
  }
  return { told, changed };
}
