import { DEFAULT_THRESHOLD } from './busy.ts';
import type { Selector } from './selector.ts';
import { type Observed, type ProcessView, wholeMs } from './world.ts';

/** Whose beginning to run holds subjects of a policy at once: some of all other processes, or of the subjects themselves. */
export interface RousedBy {
  readonly among: 'others' | 'subjects';
  readonly select?: Selector;
}

/** The subjects of a policy, and who rouses it. */
export interface Rousable {
  readonly rousedBy: RousedBy | undefined;
  readonly subjects: ReadonlySet<string>;
}

/** What is worth watching until the next tick. */
export interface Alert {
  /** Subjects that run or will run, and that somebody else's beginning to run may hold. */
  readonly loose: ReadonlySet<string>;
  /** Domains of those whose beginning to run counts; undefined means any. */
  readonly domains: ReadonlySet<string> | undefined;
  /** Whether it counts that this process is on a CPU. */
  readonly counts: (process: ProcessView) => boolean;
}

/**
 * Finds what could change the decisions before the next tick.
 * @param held keys of processes that are to be held: nobody has to take them off their CPUs any more
 * @returns undefined if nobody that could be held runs: then nothing is worth watching
 */
export function alertOf(
  world: Observed,
  standings: readonly Rousable[],
  held: ReadonlySet<string>,
): Alert | undefined {
  const loose = new Set<string>();
  const open: (Rousable & { readonly rousedBy: RousedBy })[] = [];
  for (const { rousedBy, subjects } of standings) {
    if (rousedBy === undefined || subjects.size === 0) continue;
    let isOpen = false;
    for (const { processes } of world.domains) {
      for (const process of processes) {
        if (!subjects.has(process.key) || held.has(process.key) || !isAwake(process)) continue;
        loose.add(process.key);
        isOpen = true;
      }
    }
    if (isOpen) open.push({ rousedBy, subjects });
  }
  if (open.length === 0) return undefined;
  const enough = DEFAULT_THRESHOLD * wholeMs(world) * 1e6;
  return {
    loose,
    domains: open.some(({ rousedBy }) => rousedBy.among === 'others') ? undefined : domainsOf(world, open),
    // Who was at work already is known to the policies, and changed nothing.
    counts: (process) => process.ranNs < enough && open.some((standing) => rouses(process, standing)),
  };
}

function rouses(process: ProcessView, { rousedBy, subjects }: Rousable): boolean {
  const { among, select } = rousedBy!;
  if (process.kernelThread || subjects.has(process.key) !== (among === 'subjects')) return false;
  return select === undefined || select(process);
}

/** Held ones that nobody wants to be held are about to run. */
function isAwake({ state, ranNs }: ProcessView): boolean {
  return state === 'running' || state === 'ready' || state === 'held' || (state === 'sleeping' && ranNs > 0);
}

function domainsOf({ domains }: Observed, open: readonly Rousable[]): ReadonlySet<string> {
  const has = (key: string) => open.some(({ subjects }) => subjects.has(key));
  return new Set(
    domains.filter(({ processes }) => processes.some(({ key }) => has(key))).map(({ id }) => id),
  );
}
