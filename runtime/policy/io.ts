import { everyProcess, heldSubjects, type Selector } from './selector.ts';
import type { Policy } from './world.ts';

export interface IoOptions {
  /** Processes that the subjects must not disturb; defaults to all others. */
  readonly protect?: Selector;
  /** How long a protected process counts as active after it last ran, in ms. */
  readonly windowMs?: number;
  /** Part of the time that the subjects get while a protected process is active, 0 to 1. */
  readonly duty?: number;
  /** Length of one such turn, in ms. */
  readonly periodMs?: number;
}

interface IoMemory {
  /** When a protected process last ran; undefined if none did since the first look. */
  readonly activeMs: number | undefined;
  /** Time of the first look. */
  readonly sinceMs: number;
  /** When the turns began. */
  readonly turnMs: number;
}

/**
 * Keeps I/O-bound processes out of each other's way (Tadokoro et al., 8, future work). They are rarely ready at a look
 * and use little CPU, so any run within `windowMs` counts as activity, and subjects are held while they sleep, before
 * their next request.
 *
 * With `duty` the subjects still get that part of the time. It is a part of time and not of CPU, because CPU time says
 * nothing about the disk.
 */
export function io(options: IoOptions = {}): Policy<IoMemory> {
  const { protect = () => true, windowMs = 2_000, duty = 0, periodMs = 2_000 } = options;
  return (world, memory) => {
    const worker = [...everyProcess(world.domains)].find(
      (process) =>
        !world.subjects.has(process.key) &&
        !process.kernelThread &&
        (process.ranNs > 0 || process.roused === true) &&
        protect(process),
    );
    const works = worker !== undefined;
    const activeMs = works ? world.nowMs : memory?.activeMs;
    const sinceMs = memory?.sinceMs ?? world.nowMs;
    const atWork = works || world.nowMs - (activeMs ?? sinceMs) < windowMs;
    // Nothing is known from before the first look: leave held processes held and running ones running.
    const subjects = activeMs === undefined ? heldSubjects(world) : [...world.subjects];
    const turnMs = atWork ? (memory?.turnMs ?? world.nowMs) : world.nowMs;
    // A turn begins with the part in which the subjects are held.
    const place = ((world.nowMs - turnMs) % periodMs) / periodMs;
    const hold = atWork && place < 1 - duty;
    return {
      actions: hold
        ? subjects.map((process) => ({
            type: 'hold' as const,
            process,
            reason: 'a protected process is at work',
            ...(worker?.elsewhere && { host: worker.elsewhere.host }),
          }))
        : [],
      memory: { activeMs, sinceMs, turnMs },
    };
  };
}
