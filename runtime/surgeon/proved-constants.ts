import { type Constants, proveConstants } from '../code/prove.ts';
import type { Guest } from '../guest/guest.ts';
import { guestVirtual } from '../memory/address.ts';
import { NEEDED } from '../technique/proved-bits.ts';

/** How often a guest's code is read that shows less than it takes to park: the guest may be patching it just then. */
const MAX_READINGS = 3;

/** Proves the constants of a guest's kernel on its code, as it is in the guest's memory now. */
export function constantsOf(guest: Guest): Constants {
  for (let reading = 1; ; reading++) {
    const constants = constantsNow(guest);
    if (reading === MAX_READINGS || constants.missing(NEEDED.park) === null) return constants;
  }
}

function constantsNow({ layout, kernel, space }: Guest): Constants {
  const end = layout.symbol('_etext');
  return proveConstants({
    layout,
    slide: kernel.slide,
    read: (address, length) => {
      const left = end === undefined ? BigInt(length) : end + kernel.slide - address;
      return space.readBytes(guestVirtual(address), Math.max(0, Math.min(length, Number(left))));
    },
  });
}
