import type { LayoutView } from '../../layout/view.ts';
import type { AddressSpace } from '../../memory/types.ts';

/** Where the kernel was linked to be, against where it is. */
export interface Relocation {
  /** Added to link-time addresses; a multiple of 2 MiB. */
  readonly slide: bigint;
  /** Physical address minus virtual address plus 0xffffffff80000000, in the kernel's own mapping; may be negative. */
  readonly physBase: bigint;
}

/** One way in which a relocation was found, and what it gave. */
export interface Derivation {
  readonly of: 'slide' | 'physBase';
  readonly from: string;
  readonly value: bigint;
}

/** Where a layout was read that no file was extracted for. */
export interface Learned {
  /** Name of the guest, as its host spells it. */
  readonly guest: string;
  /** ISO 8601. */
  readonly date: string;
}

/** The kernel that runs in a domain, confirmed by its own memory. */
export interface IdentifiedKernel extends Relocation {
  readonly layout: LayoutView;
  readonly space: AddressSpace;
  readonly release: string;
  readonly banner: string;
  /** From the guest's memory; null when the kernel has no such note. */
  readonly buildId: string | null;
  readonly derivations: readonly Derivation[];
  /** Of a layout that was read from a guest's memory: whose, and when. */
  readonly learned?: Learned;
  /** vCPUs that have halted for good in another kernel, which crashed: this one runs in its place. */
  readonly crashed: number;
}
