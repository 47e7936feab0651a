import { DomschedError } from '../error.ts';
import type { Guest, TakeOptions } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import type { DomainIdentity } from '../hypervisor/types.ts';
import type { Tracker } from './tracker.ts';

export type LookOptions = Omit<TakeOptions, 'withoutQueues'>;

/** What one look at a domain has found: its processes, or why it cannot be read. */
export type DomainLook = { readonly identity: Pick<DomainIdentity, 'id' | 'name' | 'pid'> } & (
  | {
      readonly guest: Guest;
      /** Knows who is held. The guest does not: its kernel sees a process that sleeps or is about to run. */
      readonly tracker: Tracker;
      readonly processes: readonly Process[];
    }
  | { readonly error: { readonly code: string; readonly message: string } }
);

/** Reads the processes of a domain that is attached to. */
export async function lookAt(
  { guest, tracker }: { readonly guest: Guest; readonly tracker: Tracker },
  options: LookOptions,
): Promise<DomainLook> {
  const { identity } = guest.domain;
  try {
    return { identity, guest, tracker, processes: await processesOf(guest, options) };
  } catch (error) {
    if (error instanceof DomschedError) return { identity, error };
    throw error;
  }
}

/** @throws DomschedError as {@link Guest.take} */
export async function processesOf(guest: Guest, options: LookOptions = {}): Promise<readonly Process[]> {
  const { processes } = await guest.take({ ...options, withoutQueues: true, unlisted: true });
  return processes;
}
