import { busyJudge, DEFAULT_THRESHOLD, type WaitingKeys, waitingNow } from './busy.ts';
import { everyProcess, type Selector } from './selector.ts';
import type { Action, Policy, ProcessView } from './world.ts';

export interface Share {
  readonly select: Selector;
  /** Relative; above 0. */
  readonly weight: number;
}

export interface ProportionalShareOptions {
  /** A process gets the weight of the first entry that matches; 1 if none does. */
  readonly shares: readonly Share[];
  /** Processes with the same group name share one weight; by default each process has its own. */
  readonly group?: (process: ProcessView) => string;
  /** Number of CPUs that the subjects compete for; that many subjects always run. */
  readonly cpus?: number;
  /** How far one group may be ahead of the others, in ms of CPU time at weight 1. */
  readonly leadMs?: number;
  readonly threshold?: number;
}

export interface ShareMemory {
  readonly waiting: WaitingKeys;
  /** CPU time divided by weight that each group has had, in ms. */
  readonly had: Readonly<Record<string, number>>;
  /** Domain of each group. */
  readonly places: Readonly<Record<string, string>>;
  /** Groups that wanted the CPU, and those of them that are held. */
  readonly wanting: readonly string[];
  readonly held: readonly string[];
}

interface ShareGroup {
  readonly name: string;
  readonly members: ProcessView[];
  weight: number;
  ranMs: number;
  wants: boolean;
}

/**
 * Divides CPU time among the subjects of all domains by weight: holds a group that is ahead until the others have
 * caught up (Tadokoro et al., 6.2). Only groups that want the CPU count; one that slept comes back level with the
 * others. At least `cpus` of those that want a CPU always run.
 *
 * Example: `web` has weight 3 and `batch` 1, in two guests on one CPU. Over time `web` gets three quarters of it.
 */
export function proportionalShare(options: ProportionalShareOptions): Policy<ShareMemory> {
  const { shares, group = ({ key }) => key, cpus = 1, leadMs = 100, threshold = DEFAULT_THRESHOLD } = options;
  const weightOf = (process: ProcessView) => shares.find(({ select }) => select(process))?.weight ?? 1;
  return (world, memory) => {
    const isBusy = busyJudge(world, threshold, memory?.waiting);
    const subjects = [...everyProcess(world.domains)].filter(({ key }) => world.subjects.has(key));
    const groups = new Map<string, ShareGroup>();
    for (const process of subjects) {
      const name = group(process);
      const found = groups.get(name) ?? {
        name,
        members: [],
        weight: weightOf(process),
        ranMs: 0,
        wants: false,
      };
      groups.set(name, found);
      found.members.push(process);
      found.ranMs += process.ranNs / 1e6;
      // Nobody can tell for a held process; assume that it would run.
      found.wants ||= process.state === 'held' || isBusy(process);
    }
    const had = charge([...groups.values()], memory?.had ?? {}, new Set(memory?.wanting));
    const wanting = [...groups.values()].filter(({ wants }) => wants);
    const least = Math.min(...wanting.map(({ name }) => had[name]!));
    const before = new Set(memory?.held);
    const held = wanting
      // Hold until it is level again; otherwise it would be held and released at every tick.
      .filter(({ name }) => had[name]! - least > (before.has(name) ? 0 : leadMs))
      .sort((a, b) => had[b.name]! - had[a.name]!)
      .slice(0, Math.max(0, wanting.length - cpus));
    const actions: Action[] = held.flatMap(({ name, members }) =>
      members.map(({ key }) => ({
        type: 'hold' as const,
        process: key,
        reason: `${Math.round(had[name]! - least)} ms ahead of its share`,
      })),
    );
    return {
      actions,
      memory: {
        waiting: waitingNow(subjects),
        had,
        places: Object.fromEntries(wanting.map(({ name, members }) => [name, members[0]!.domain])),
        wanting: wanting.map(({ name }) => name),
        held: held.map(({ name }) => name),
      },
    };
  };
}

/**
 * Adds what each group has had since the last tick. A group that is new or comes back starts level with the group that
 * has had least.
 */
function charge(
  groups: readonly ShareGroup[],
  before: Readonly<Record<string, number>>,
  wanted: ReadonlySet<string>,
): Record<string, number> {
  const stayed = groups
    .filter(({ name, wants }) => wants && wanted.has(name))
    .map(({ name }) => before[name]!);
  const level = stayed.length === 0 ? 0 : Math.min(...stayed);
  const had: Record<string, number> = {};
  for (const { name, weight, ranMs } of groups) {
    const start = wanted.has(name) ? before[name]! : level;
    had[name] = start + ranMs / weight;
  }
  // Only differences matter, and numbers that grow without end would lose their last digits.
  const least = Math.min(...Object.values(had));
  for (const name of Object.keys(had)) had[name]! -= least;
  return had;
}
