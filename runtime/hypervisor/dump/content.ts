import type { FrameReader, FrameRegion, VcpuRegisters } from '../types.ts';

/** The frames of a dump, however they are stored. */
export interface DumpPages {
  regions(): readonly FrameRegion[];
  /**
   * Copies a piece of one frame.
   * @returns false if the dump does not have that frame
   * @throws DomschedError `dump-corrupt` when the frame is there but damaged
   */
  read(frame: number, offset: number, length: number, into: Uint8Array, position: number): boolean;
  /** How many frames from this one on lie one behind the other, so that one `read` may reach over all of them. */
  together?(frame: number): number;
}

/** A section's name, with its place from the header. */
export interface ElfSection {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
}

/** The content of a dump in any format. */
export interface DumpContent {
  readonly format: 'elf-core' | 'xen-core' | 'kdump' | 'lime' | 'raw';
  /** `machine` if its page tables hold machine frames (Xen PV). */
  readonly space: FrameReader['space'];
  readonly pages: DumpPages;
  /** Undefined for formats without registers. */
  readonly registers: readonly VcpuRegisters[] | undefined;
}

/** No dump format has EFER. Dumps hold only 64-bit kernels, which run with SCE, LME, LMA and NXE. */
export const ASSUMED_EFER = 0xd01n;
