import type { LayoutView } from '../../layout/view.ts';
import type { AddressSpace } from '../../memory/types.ts';

/** Relation between the kernel's link-time addresses and where it is. */
export interface Relocation {
  /** Added to link-time addresses; a multiple of 2 MiB. */
  readonly slide: bigint;
  /** In the kernel's own mapping: physical address minus virtual address plus 0xffffffff80000000; may be negative. */
  readonly physBase: bigint;
}

/** One derivation of a relocation, and its result. */
export interface Derivation {
  readonly of: 'slide' | 'physBase';
  readonly from: string;
  readonly value: bigint;
}

/** Origin of a layout that was read from a guest's memory. */
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
  /** Build-id in the guest's memory; null when the kernel has no such note. */
  readonly buildId: string | null;
  readonly derivations: readonly Derivation[];
  /** For a layout that was read from a guest's memory: which guest, and when. */
  readonly learned?: Learned;
  /** Number of vCPUs that have halted for good in another kernel, which crashed: this kernel runs in its place. */
  readonly crashed: number;
  /** Without registers: number of other kernels in memory that are whole and do not move. */
  readonly standing?: number;
}
