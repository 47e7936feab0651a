declare const brand: unique symbol;

/** Bytes of one frame; x86-64 has no other base size (Intel SDM vol. 3A, 4.2). */
export const FRAME_SIZE = 4096;

/** Frame numbers end here: physical addresses have at most 52 bits (Intel SDM vol. 3A, 4.1.4). */
export const FRAME_LIMIT = 2 ** 40;

/** Frame number in the guest's physical address space. */
export type GuestFrame = number & { readonly [brand]: 'GuestFrame' };

/** Frame number of the machine, as the page tables of a Xen PV guest hold it. */
export type MachineFrame = number & { readonly [brand]: 'MachineFrame' };

/** A frame number of either space. */
export type FrameNumber = GuestFrame | MachineFrame;

/** Physical address in the guest, in bytes: below 2^52, so a JavaScript number holds it exactly. */
export type GuestPhysical = number & { readonly [brand]: 'GuestPhysical' };

/** @throws RangeError if it cannot be an x86-64 frame number */
export function guestFrame(value: number): GuestFrame {
  return checkFrame(value) as GuestFrame;
}

/** @throws RangeError if it cannot be an x86-64 frame number */
export function machineFrame(value: number): MachineFrame {
  return checkFrame(value) as MachineFrame;
}

/** @throws RangeError if it cannot be an x86-64 physical address */
export function guestPhysical(value: number | bigint): GuestPhysical {
  const number = Number(value);
  checkFrame(Math.floor(number / FRAME_SIZE));
  return number as GuestPhysical;
}

/** Frame that contains the address. */
export function frameOf(address: GuestPhysical): GuestFrame {
  return Math.floor(address / FRAME_SIZE) as GuestFrame;
}

/** Byte offset of the address in its frame. */
export function offsetInFrame(address: GuestPhysical): number {
  return address % FRAME_SIZE;
}

function checkFrame(value: number): number {
  if (!Number.isInteger(value) || value < 0 || value >= FRAME_LIMIT) {
    throw new RangeError(`${value} is no frame number: it has to be an integer in 0..2^40-1`);
  }
  return value;
}
