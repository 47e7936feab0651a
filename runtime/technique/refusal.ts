import { DomschedError } from '../error.ts';
import { formatAddress, type GuestVirtual } from '../memory/address.ts';

/** Error for a thread that a technique may not touch. @param reason a clause: `is under a tracer` */
export function threadRefusal(task: GuestVirtual, reason: string): DomschedError {
  const address = formatAddress(task);
  return new DomschedError('refused', `task ${address} ${reason}; nothing was changed`, { task: address });
}
