import type { GuestVirtual } from '../memory/address.ts';
import type { MemoryView, WordSize } from './memory-view.ts';

/** Bytes that a plan looked at: if they differ when the edit is committed, the plan is void. */
export interface EditRead {
  readonly address: GuestVirtual;
  readonly bytes: Uint8Array;
}

/** One word that an edit changes. */
export interface EditWrite {
  readonly address: GuestVirtual;
  readonly size: WordSize;
  readonly old: bigint;
  readonly new: bigint;
  /** In the kernel's words: `rq[1].nr_running`. */
  readonly what: string;
}

/** Something that has to be true of the guest's structures before an edit and after it. */
export interface Invariant {
  readonly what: string;
  /** @throws DomschedError `guest-inconsistent` with the fact that is not so */
  check(memory: MemoryView): void;
}

/** A planned change of a guest as plain data. Nothing of it has happened yet. */
export interface Edit {
  /** What it is for: `hold pid 7 (pi1)`. */
  readonly title: string;
  readonly reads: readonly EditRead[];
  /** In the order in which they are written. No two overlap. */
  readonly writes: readonly EditWrite[];
  /** Hold before and after. */
  readonly invariants: readonly Invariant[];
  /** What the edit is to achieve: holds after it. */
  readonly outcome: readonly Invariant[];
  /** A guest may run on after any number of its first writes, and nothing is lost but what the edit was for. */
  readonly harmlessInParts?: true;
}

const HEX_FROM = 1n << 20n;

/** A value as a kernel person reads it: counts in decimal, pointers and masks in hexadecimal. */
function formatValue(value: bigint): string {
  return value < HEX_FROM ? value.toString() : `0x${value.toString(16)}`;
}

/** The writes of an edit in words, one line each: `rq[1].nr_running 4 -> 3`. */
export function describeEdit(edit: Edit): string[] {
  return edit.writes.map((write) => `${write.what} ${formatValue(write.old)} -> ${formatValue(write.new)}`);
}
