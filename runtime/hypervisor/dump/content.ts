import type { FrameReader, FrameRegion, VcpuRegisters } from '../types.ts';

/** The frames of a dump, however they are stored. */
export interface DumpPages {
  regions(): readonly FrameRegion[];
  /**
   * Copies a piece of one frame.
   * @returns false where the dump does not have that frame
   * @throws DomschedError `dump-corrupt` when it has, but damaged
   */
  read(frame: number, offset: number, length: number, into: Uint8Array, position: number): boolean;
}

/** A section by name, with what its header says. */
export interface ElfSection {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

/** What a dump holds, whatever its format. */
export interface DumpContent {
  readonly format: 'elf-core' | 'xen-core' | 'kdump' | 'lime' | 'raw';
  /** `machine` where the page tables in it hold machine frames (Xen PV). */
  readonly space: FrameReader['space'];
  readonly pages: DumpPages;
  /** Undefined for formats that have none. */
  readonly registers: readonly VcpuRegisters[] | undefined;
}

/** EFER is in no dump format; these have 64-bit kernels only, which run with SCE, LME, LMA and NXE. */
export const ASSUMED_EFER = 0xd01n;
