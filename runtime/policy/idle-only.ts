import { busyJudge, DEFAULT_THRESHOLD, isAtRest, type WaitingKeys, waitingNow } from './busy.ts';
import { everyProcess, heldSubjects, type Selector } from './selector.ts';
import type { Policy, ProcessView } from './world.ts';

export interface IdleOnlyOptions {
  /** Part of one CPU from which another process counts as running, 0 to 1. */
  readonly threshold?: number;
  /** How long all others must be idle before the subjects continue, in ms. */
  readonly quietMs?: number;
  /** Processes that may run beside the subjects: monitoring, housekeeping. */
  readonly ignore?: Selector;
}

interface IdleMemory {
  readonly waiting: WaitingKeys;
  /** When another process last ran; undefined if none did since the first look. */
  readonly busyMs: number | undefined;
  /** Time of the first look. */
  readonly sinceMs: number;
}

/**
 * Lets the subjects run only while every other process of every domain is stopped (Tadokoro et al., 5.2 and 5.4): for
 * backups, indexers, updates.
 *
 * Example: `backup` is the subject. While `db` in another guest uses the CPU, `backup` is held; when `db` sleeps,
 * `backup` continues.
 */
export function idleOnly(options: IdleOnlyOptions = {}): Policy<IdleMemory> {
  const { threshold = DEFAULT_THRESHOLD, quietMs = 0, ignore = () => false } = options;
  return (world, memory) => {
    const isBusy = busyJudge(world, threshold, memory?.waiting);
    const others: ProcessView[] = [];
    for (const process of everyProcess(world.domains)) {
      if (isAtRest(process) || process.kernelThread) continue;
      if (!world.subjects.has(process.key) && !ignore(process)) others.push(process);
    }
    const busy = others.find(isBusy);
    const busyMs = busy === undefined ? memory?.busyMs : world.nowMs;
    const sinceMs = memory?.sinceMs ?? world.nowMs;
    const hold = busy !== undefined || world.nowMs - (busyMs ?? sinceMs) < quietMs;
    // Nothing is known from before the first look: leave held processes held and running ones running.
    const subjects = busyMs === undefined ? heldSubjects(world) : [...world.subjects];
    const reason = busy === undefined ? 'others ran a moment ago' : `${nameOf(busy)} runs`;
    const elsewhere = busy?.elsewhere && { host: busy.elsewhere.host };
    return {
      actions: hold
        ? subjects.map((process) => ({ type: 'hold' as const, process, reason, ...elsewhere }))
        : [],
      memory: { waiting: waitingNow(others), busyMs, sinceMs },
    };
  };
}

function nameOf({ domainName, comm, pid }: ProcessView): string {
  return `${domainName}: ${comm} (${pid})`;
}
