import { busyJudge, DEFAULT_THRESHOLD, type WaitingKeys, waitingNow } from './busy.ts';
import { everyProcess, heldSubjects, type Selector } from './selector.ts';
import type { Policy, ProcessView } from './world.ts';

export interface IdleOnlyOptions {
  /** Part of one CPU that makes another process count as running, 0 to 1. */
  readonly threshold?: number;
  /** How long all others have to be idle before the subjects go on, in ms. */
  readonly quietMs?: number;
  /** Processes that may run beside the subjects: monitoring, housekeeping. */
  readonly ignore?: Selector;
}

interface IdleMemory {
  readonly waiting: WaitingKeys;
  /** When somebody else last ran; undefined while none did since the first look. */
  readonly busyMs: number | undefined;
  /** The first look. */
  readonly sinceMs: number;
}

/**
 * The subjects run only while every other process of every domain is stopped (Tadokoro et al., 5.2 and 5.4): backups,
 * indexers, updates.
 *
 * `backup` is the subject and `db`, in another guest, uses the CPU: `backup` is held. `db` sleeps: it goes on.
 */
export function idleOnly(options: IdleOnlyOptions = {}): Policy<IdleMemory> {
  const { threshold = DEFAULT_THRESHOLD, quietMs = 0, ignore = () => false } = options;
  return (world, memory) => {
    const isBusy = busyJudge(world, threshold, memory?.waiting);
    const others = [...everyProcess(world.domains)].filter(
      (process) => !world.subjects.has(process.key) && !process.kernelThread && !ignore(process),
    );
    const busy = others.find(isBusy);
    const busyMs = busy === undefined ? memory?.busyMs : world.nowMs;
    const sinceMs = memory?.sinceMs ?? world.nowMs;
    const hold = busy !== undefined || world.nowMs - (busyMs ?? sinceMs) < quietMs;
    // Of what was before the first look nobody knows: who is held stays so, who runs goes on.
    const subjects = busyMs === undefined ? heldSubjects(world) : [...world.subjects];
    const reason = busy === undefined ? 'others ran a moment ago' : `${nameOf(busy)} runs`;
    return {
      actions: hold ? subjects.map((process) => ({ type: 'hold' as const, process, reason })) : [],
      memory: { waiting: waitingNow(others), busyMs, sinceMs },
    };
  };
}

function nameOf({ domainName, comm, pid }: ProcessView): string {
  return `${domainName}: ${comm} (${pid})`;
}
