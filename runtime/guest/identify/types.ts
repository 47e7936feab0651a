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

/** Who wants to know whether a guest proves the layout that was found for it. */
export interface LayoutTrial {
  accept(): void;
  /** Then the kernel is identified anew, without that layout; absent if no other could be found. */
  readonly refuse?: (why: string) => void;
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
  /** For a layout that others may have, or that came from others. */
  readonly trial?: LayoutTrial;
  /** Number of vCPUs that have halted for good in another kernel, which crashed: this kernel runs in its place. */
  readonly crashed: number;
  /** Without registers: number of other kernels in memory that are whole and do not move. */
  readonly standing?: number;
}
