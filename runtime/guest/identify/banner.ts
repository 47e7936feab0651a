import { type GuestVirtual, guestVirtual } from '../../memory/address.ts';
import type { AddressSpace } from '../../memory/types.ts';

/** Every kernel's `linux_banner` begins with this (Linux init/version.c). */
export const BANNER_START = 'Linux version ';
/** Most bytes of a banner. One with a compiler's full version has some 250. */
export const MAX_BANNER = 1024;

/** Whether the guest has exactly this banner, with newline and final NUL, at `address`. */
export function hasBanner(space: AddressSpace, address: GuestVirtual, banner: string): boolean {
  const expected = Buffer.from(`${banner}\n\0`, 'latin1');
  const found = tryRead(space, address, expected.length);
  return found !== undefined && Buffer.compare(found, expected) === 0;
}

/** The banner that begins at the start of `bytes`, without its newline; undefined when there is none. */
export function bannerIn(bytes: Uint8Array): string | undefined {
  const text = Buffer.from(bytes.subarray(0, MAX_BANNER)).toString('latin1');
  if (!text.startsWith(BANNER_START)) return undefined;
  const end = text.indexOf('\n');
  if (end < 0) return undefined;
  const banner = text.slice(0, end);
  // Requires a release and a builder, which excludes the kernel's own format string and lines of other text.
  return /^Linux version [0-9][\x21-\x7e]* \([\x20-\x7e]+$/.test(banner) && text[end + 1] === '\0'
    ? banner
    : undefined;
}

/** The release in a banner, such as `6.1.0-56-cloud-amd64`. */
export function releaseOf(banner: string): string {
  return banner.slice(BANNER_START.length).split(' ', 1)[0]!;
}

/** Bytes at an address; undefined when they are not all mapped. */
export function tryRead(space: AddressSpace, address: GuestVirtual, length: number): Uint8Array | undefined {
  try {
    return space.readBytes(guestVirtual(address), length);
  } catch (error) {
    if ((error as { code?: string }).code === 'translation-fault') return undefined;
    throw error;
  }
}
