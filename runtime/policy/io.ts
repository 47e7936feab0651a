import { everyProcess, heldSubjects, type Selector } from './selector.ts';
import type { Policy } from './world.ts';

export interface IoOptions {
  /** Whom the subjects must not disturb; every other process when left out. */
  readonly protect?: Selector;
  /** How long a protected process counts as at work after it last ran, in ms. */
  readonly windowMs?: number;
  /** Part of the time that the subjects get while somebody protected is at work, 0 to 1. */
  readonly duty?: number;
  /** Length of a turn of that, in ms. */
  readonly periodMs?: number;
}

interface IoMemory {
  /** When somebody protected last ran; undefined while none did since the first look. */
  readonly activeMs: number | undefined;
  /** The first look. */
  readonly sinceMs: number;
  /** When the turns began. */
  readonly turnMs: number;
}

/**
 * Keeps processes that live from input and output out of each other's way (Tadokoro et al., 8, future work). They
 * are hardly ever ready when one looks, and use little CPU, so neither a look nor CPU time tells what they do: any
 * run at all within `windowMs` counts as work, and subjects are held in their sleep, before their next request.
 *
 * With `duty` the subjects get that part of the time even so: their share is of time, since their CPU time says
 * nothing of the disk.
 */
export function io(options: IoOptions = {}): Policy<IoMemory> {
  const { protect = () => true, windowMs = 2_000, duty = 0, periodMs = 2_000 } = options;
  return (world, memory) => {
    const works = [...everyProcess(world.domains)].some(
      (process) =>
        !world.subjects.has(process.key) && !process.kernelThread && process.ranNs > 0 && protect(process),
    );
    const activeMs = works ? world.nowMs : memory?.activeMs;
    const sinceMs = memory?.sinceMs ?? world.nowMs;
    const atWork = works || world.nowMs - (activeMs ?? sinceMs) < windowMs;
    // Of what was before the first look nobody knows: who is held stays so, who runs goes on.
    const subjects = activeMs === undefined ? heldSubjects(world) : [...world.subjects];
    const turnMs = atWork ? (memory?.turnMs ?? world.nowMs) : world.nowMs;
    // The turn begins with the part in which the subjects are held.
    const place = ((world.nowMs - turnMs) % periodMs) / periodMs;
    const hold = atWork && place < 1 - duty;
    return {
      actions: hold
        ? subjects.map((process) => ({
            type: 'hold' as const,
            process,
            reason: 'a protected process is at work',
          }))
        : [],
      memory: { activeMs, sinceMs, turnMs },
    };
  };
}
