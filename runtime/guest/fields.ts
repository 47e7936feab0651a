import type { Field } from '../layout/field.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { AddressSpace } from '../memory/types.ts';

/**
 * Reads one member of the structure at `base` by itself, with its own width.
 * @throws DomschedError `translation-fault`; `layout-absent-member` if it is not a scalar
 */
export function readMember(space: AddressSpace, base: GuestVirtual, member: Field): bigint {
  const { offset, size } = member.word;
  const bytes = space.readBytes(advance(base, offset), size);
  return member.bigint(new DataView(bytes.buffer, bytes.byteOffset, size), -offset);
}

/** As {@link readMember}, for pointers. */
export function readPointer(space: AddressSpace, base: GuestVirtual, member: Field): GuestVirtual {
  return readMember(space, base, member) as GuestVirtual;
}
