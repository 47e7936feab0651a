import { DomschedError } from '../error.ts';
import type { Process } from '../guest/process.ts';
import type { JournaledSurgeon } from '../surgeon/journaled-surgeon.ts';
import type { Standing } from './reconcile.ts';
import type { Tracker } from './tracker.ts';

/** Every so many looks a hold is checked thread by thread, even without a sign that it came loose. */
const CHECK_EVERY = 10;

/** Whether there is nothing to undo in a domain, whatever its processes are. */
export function isUntouched(tracker: Tracker, surgeon: JournaledSurgeon): boolean {
  return tracker.holds.size === 0 && !surgeon.niced;
}

/** What we have done to each process of a domain. */
export function standingsOf(tracker: Tracker, surgeon: JournaledSurgeon): Standing[] {
  return tracker.views().map((view) => {
    const process = tracker.process(view.key)!;
    const held = tracker.holds.has(view.key);
    const niced = surgeon.niceRecord(process);
    const loose = held && isLoose(view.ranNs, process, surgeon, tracker);
    return { process: view, held, loose, niced: niced && { before: niced.before, set: niced.set } };
  });
}

/** Whether a held process may have come loose: its guest thawed it, or it has a new thread. */
function isLoose(ranNs: number, process: Process, { surgeon }: JournaledSurgeon, tracker: Tracker): boolean {
  if (ranNs === 0 && tracker.looks % CHECK_EVERY !== 0) return false;
  try {
    return !surgeon.seemsHeld(process);
  } catch (error) {
    if (error instanceof DomschedError) return false;
    throw error;
  }
}
