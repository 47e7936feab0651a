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

/** The kernel that runs in a domain, confirmed by its own memory. */
export interface IdentifiedKernel extends Relocation {
  readonly layout: LayoutView;
  readonly space: AddressSpace;
  readonly release: string;
  readonly banner: string;
  /** From the guest's memory; null when the kernel has no such note. */
  readonly buildId: string | null;
  readonly derivations: readonly Derivation[];
  /** vCPUs that have halted for good in another kernel, which crashed: this one runs in its place. */
  readonly crashed: number;
}
