import type { GuestVirtual } from '../memory/address.ts';
import type { MemoryView, WordSize } from './memory-view.ts';

/** Bytes that a plan looked at. If they differ at commit, the plan is void. */
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
  /** In the kernel's terms: `rq[1].nr_running`. */
  readonly what: string;
}

/** A fact about the guest's structures that must be true before and after an edit. */
export interface Invariant {
  readonly what: string;
  /** @throws DomschedError `guest-inconsistent` with the fact that is not true */
  check(memory: MemoryView): void;
}

/** A planned change of a guest, as plain data. None of it has happened yet. */
export interface Edit {
  /** What it does: `hold pid 7 (pi1)`. */
  readonly title: string;
  readonly reads: readonly EditRead[];
  /** In writing order, without overlaps. */
  readonly writes: readonly EditWrite[];
  /** True before and after the edit. */
  readonly invariants: readonly Invariant[];
  /** What the edit must achieve: true after it. */
  readonly outcome: readonly Invariant[];
  /** The guest may continue after any number of the first writes; only the purpose of the edit is lost. */
  readonly harmlessInParts?: true;
}

const HEX_FROM = 1n << 20n;

/** Formats a value as kernel developers read it: counts in decimal, pointers and masks in hexadecimal. */
function formatValue(value: bigint): string {
  return value < HEX_FROM ? value.toString() : `0x${value.toString(16)}`;
}

/** Describes the writes of an edit, one line each: `rq[1].nr_running 4 -> 3`. */
export function describeEdit(edit: Edit): string[] {
  return edit.writes.map((write) => `${write.what} ${formatValue(write.old)} -> ${formatValue(write.new)}`);
}
