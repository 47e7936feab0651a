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

function constantsNow(guest: Guest): Constants {
  const { layout, kernel } = guest;
  return new KeptProofs().prove({
    layout,
    slide: kernel.slide,
    // A layout may be a lie: what is not in the text has no code, and what is not in the image no table.
    read: (address, length) => readBelow(guest, '_etext', address, length),
    readData: (address, length) => readBelow(guest, '_end', address, length),
  });
}

/** Memory up to a symbol at most; none beyond it. */
function readBelow(
  { layout, kernel, space }: Guest,
  symbol: '_etext' | '_end',
  address: bigint,
  length: number,
): Uint8Array {
  const end = layout.symbol(symbol);
  const left = end === undefined ? BigInt(length) : end + kernel.slide - address;
  if (left <= 0n) return new Uint8Array(0);
  return space.readBytes(guestVirtual(address), Math.min(length, Number(left)));
}
