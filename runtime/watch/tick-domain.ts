import type { Guest } from '../guest/guest.ts';
import { printable } from '../guest/text.ts';
import { withoutAddresses } from '../memory/address.ts';
import type { TickDomain } from '../tick/tick.ts';
import type { Tracker } from './tracker.ts';

/** What is known of a domain's guest; without a tracker nothing of its processes. */
interface Seen {
  readonly guest?: Guest | undefined;
  readonly tracker?: Tracker | undefined;
  readonly error?: TickDomain['error'] | undefined;
}

/** What a tick reports about a domain. */
export function tickDomain(
  facts: Omit<TickDomain, 'kernel' | 'error' | 'processes'>,
  { guest, tracker, error }: Seen,
): TickDomain {
  return {
    ...facts,
    name: printable(facts.name),
    ...(guest !== undefined && { kernel: printable(guest.kernel.release) }),
    ...(error !== undefined && {
      error: { code: error.code, message: withoutAddresses(printable(error.message)) },
    }),
    processes: tracker?.tickProcesses() ?? [],
  };
}
