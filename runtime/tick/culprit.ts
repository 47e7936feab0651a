import type { TickWait } from './tick.ts';

/** For people: `web: gzip`, `the host: make`, or what of a domain had the CPU. */
export function culpritName({ kind, domain = '', comm = '' }: TickWait['culprit']): string {
  switch (kind) {
    case 'process':
      return `${domain}: ${comm}`;
    case 'host':
      return `the host: ${comm}`;
    case 'guest':
      return `${domain}: (its kernel and interrupts)`;
    case 'machine':
      return `${domain}: (its devices and monitor)`;
    case 'cap':
      return `${domain}: (its own cap)`;
    default:
      return '(nobody that was seen)';
  }
}
