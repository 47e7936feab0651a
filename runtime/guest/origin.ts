import { DomschedError } from '../error.ts';
import { FRAME_SIZE } from '../hypervisor/frame.ts';
import type { Field } from '../layout/field.ts';
import { optionalField } from '../layout/members.ts';
import { type GuestVirtual, guestVirtual } from '../memory/address.ts';
import { PagedAddressSpace } from '../memory/address-space.ts';
import type { AddressSpace } from '../memory/types.ts';
import { readMember, readPointer } from './fields.ts';
import type { Guest } from './guest.ts';
import type { Process } from './process.ts';
import { printableBytes } from './text.ts';

/** Where a process comes from. Facts that the layout or the guest does not have are left out. */
export interface Origin {
  /** Real user id, in the guest's initial user namespace. */
  readonly uid?: number;
  /** Path of its group in the unified hierarchy; `/` is the root. Safe to print. */
  readonly cgroup?: string;
  /** Arguments separated by blanks, at most {@link MAX_COMMAND} bytes of them. Safe to print. */
  readonly commandLine?: string;
}

/** Most bytes of a command line to read. */
const MAX_COMMAND = 1024;
/** Limits on the depth of a group's path and on the length of one name (Linux NAME_MAX). */
const MAX_DEPTH = 64;
const MAX_NAME = 255;
/** First address beyond those of programs, with 5-level paging (Intel SDM vol. 3A, 4.5). */
const USER_END = 1n << 56n;

/** Reads the origin of a process. A part that cannot be read does not hide the others. */
export function originOf(guest: Guest, { address }: Pick<Process, 'address'>): Origin {
  const uid = attempt(() => uidOf(guest, address));
  const cgroup = attempt(() => cgroupOf(guest, address));
  const commandLine = attempt(() => commandLineOf(guest, address));
  return {
    ...(uid !== undefined && { uid }),
    ...(cgroup !== undefined && { cgroup }),
    ...(commandLine !== undefined && { commandLine }),
  };
}

function uidOf({ layout, space }: Guest, task: GuestVirtual): number | undefined {
  const own = optionalField(layout, 'task_struct', 'uid');
  if (own !== undefined) return Number(readMember(space, task, own));
  const credentials = pointer(space, task, optionalField(layout, 'task_struct', 'cred'));
  const uid = optionalField(layout, 'cred', 'uid');
  return credentials === undefined || uid === undefined
    ? undefined
    : Number(readMember(space, credentials, uid));
}

function cgroupOf({ layout, space }: Guest, task: GuestVirtual): string | undefined {
  const set = pointer(space, task, optionalField(layout, 'task_struct', 'cgroups'));
  const group = pointer(space, set, optionalField(layout, 'css_set', 'dfl_cgrp'));
  const parentField = optionalField(layout, 'kernfs_node', 'parent');
  const nameField = optionalField(layout, 'kernfs_node', 'name');
  let node = pointer(space, group, optionalField(layout, 'cgroup', 'kn'));
  if (node === undefined || nameField === undefined || parentField === undefined) return undefined;
  const names: string[] = [];
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const parent = pointer(space, node, parentField);
    if (parent === undefined) return `/${names.reverse().map(printableBytes).join('/')}`;
    names.push(space.readString(readPointer(space, node!, nameField), MAX_NAME));
    node = parent;
  }
  return undefined;
}

function commandLineOf({ layout, space }: Guest, task: GuestVirtual): string | undefined {
  const memory = pointer(space, task, optionalField(layout, 'task_struct', 'mm'));
  const [start, end] = (['arg_start', 'arg_end'] as const).map((name) =>
    optionalField(layout, 'mm_struct', name),
  );
  const table = pointer(space, memory, optionalField(layout, 'mm_struct', 'pgd'));
  if (memory === undefined || start === undefined || end === undefined || table === undefined)
    return undefined;
  const from = readMember(space, memory, start);
  const to = readMember(space, memory, end);
  if (from === 0n || to <= from || to >= USER_END) return undefined;
  const length = Number(to - from < BigInt(MAX_COMMAND) ? to - from : BigInt(MAX_COMMAND));
  const { frame, offset } = space.translate(table);
  const own = new PagedAddressSpace(space.domain, space.mode, frame * FRAME_SIZE + offset);
  const bytes = own.readBytes(guestVirtual(from), length);
  const text = Buffer.from(bytes).toString('latin1').replace(/\0+$/, '');
  return printableBytes(text.replaceAll('\0', ' '));
}

/** The pointer in a member; undefined when the member does not exist or is null. */
function pointer(
  space: AddressSpace,
  base: GuestVirtual | undefined,
  member: Field | undefined,
): GuestVirtual | undefined {
  if (base === undefined || member === undefined) return undefined;
  const found = readPointer(space, base, member);
  return found === 0n ? undefined : found;
}

/** Missing memory (swapped out, or freed while we look) is no failure of the look. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof DomschedError && error.code === 'translation-fault') return undefined;
    throw error;
  }
}
