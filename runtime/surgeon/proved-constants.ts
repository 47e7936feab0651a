import { KeptProofs } from '../code/kept-proofs.ts';
import type { ConstantName, Constants } from '../code/prove.ts';
import type { Guest } from '../guest/guest.ts';
import { guestVirtual } from '../memory/address.ts';
import { NEEDED } from '../technique/proved-bits.ts';

/** How often we read code that shows less than is needed: the guest may be patching it at that moment. */
const MAX_READINGS = 3;

/**
 * Proves the kernel's constants on the guest's code as it is in memory now, or finds that this very code was proved before.
 * @param needed without one of these we read again
 */
export function constantsOf(guest: Guest, needed: readonly ConstantName[] = NEEDED.park): Constants {
  for (let reading = 1; ; reading++) {
    const constants = constantsNow(guest);
    if (reading === MAX_READINGS || constants.missing(needed) === null) return constants;
  }
}

function constantsNow({ layout, kernel, space }: Guest): Constants {
  const end = layout.symbol('_etext');
  return new KeptProofs().prove({
    layout,
    slide: kernel.slide,
    read: (address, length) => {
      const left = end === undefined ? BigInt(length) : end + kernel.slide - address;
      // A layout may be a lie: what is not in the text has no code.
      if (left <= 0n) return new Uint8Array(0);
      return space.readBytes(guestVirtual(address), Math.min(length, Number(left)));
    },
  });
}
