import type { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { printable } from '../guest/text.ts';
import { withoutAddresses } from '../memory/address.ts';
import type { TickDomain } from '../tick/tick.ts';
import type { Tracker } from './tracker.ts';

/**
 * What a tick reports about a domain.
 * @param seen what is known of its guest; if it is an error, no processes are reported
 */
export function tickDomain(
  facts: Omit<TickDomain, 'kernel' | 'error' | 'processes'>,
  { guest, tracker, error }: { guest?: Guest; tracker?: Tracker; error?: DomschedError },
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
