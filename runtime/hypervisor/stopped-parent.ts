import { type HostProcess, isAlive } from '../host-process.ts';
import { processState } from './qemu/qemu-process.ts';
import { lastRan } from './thread-clock.ts';

/** Interval of looks, ms. A program that does not run from one look to the next stands still. */
export const LOOK_MS = 1_000;

/**
 * Calls `act` at every look while the program stands still by a signal (SIGSTOP) or a debugger, and has since the look
 * before. It may go on at any moment: `act` gets a function that says whether it still stands, as it has all the time.
 */
export function whileStopped(
  parent: HostProcess,
  act: (stands: () => boolean) => void | Promise<void>,
  lookMs = LOOK_MS,
): NodeJS.Timeout {
  let before: string | undefined;
  let busy = false;
  return setInterval(async () => {
    const now = standsSince(parent);
    const long = now !== undefined && now === before;
    before = now;
    if (!long || busy) return;
    busy = true;
    try {
      await act(() => standsSince(parent) === now);
    } catch {
      // Another look is soon.
    } finally {
      busy = false;
    }
  }, lookMs);
}

/** Changes with every moment that a stopped program has run; undefined if it is not stopped. */
function standsSince(parent: HostProcess): string | undefined {
  const state = isAlive(parent) ? processState(parent.pid) : undefined;
  return state === 'T' || state === 't' ? `stands since ${lastRan(parent.pid)}` : undefined;
}
