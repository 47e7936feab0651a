import { type Constants, proveConstants } from '../code/prove.ts';
import type { Guest } from '../guest/guest.ts';
import { guestVirtual } from '../memory/address.ts';
import { NEEDED } from '../technique/proved-bits.ts';

/** How often we read code that shows less than parking needs: the guest may be patching it at that moment. */
const MAX_READINGS = 3;

/** Proves the kernel's constants on the guest's code as it is in memory now. */
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
