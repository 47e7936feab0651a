export {
  FRAME_SIZE,
  type FrameNumber,
  frameOf,
  type GuestFrame,
  type GuestPhysical,
  guestFrame,
  guestPhysical,
  type MachineFrame,
  machineFrame,
  offsetInFrame,
} from '../hypervisor/frame.ts';

declare const brand: unique symbol;

/** Virtual address in the guest: unsigned 64 bits, like a pointer of the guest's kernel. */
export type GuestVirtual = bigint & { readonly [brand]: 'GuestVirtual' };

/** Takes the low 64 bits as an address. */
export function guestVirtual(value: bigint): GuestVirtual {
  return BigInt.asUintN(64, value) as GuestVirtual;
}

/** The address `bytes` further on (or back), wrapping around like pointers. */
export function advance(address: GuestVirtual, bytes: number | bigint): GuestVirtual {
  return BigInt.asUintN(64, address + BigInt(bytes)) as GuestVirtual;
}

/** Formats an address as the kernel prints it: `ffffffff81000000`. */
export function formatAddress(address: bigint): string {
  return address.toString(16).padStart(16, '0');
}

/** Removes kernel addresses from a message for people who must not learn where the guest's kernel is. */
export function withoutAddresses(message: string): string {
  return message.replace(/\b(?:0x)?f[0-9a-f]{15}\b/gi, '(address)');
}
