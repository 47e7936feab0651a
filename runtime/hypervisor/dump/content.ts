import type { FrameReader, VcpuRegisters } from '../types.ts';

/** Frames that are contiguous in a dump. */
export interface DumpSegment {
  readonly first: number;
  readonly count: number;
  /** Of the first frame in the file. */
  readonly offset: number;
}

/** What a dump holds, whatever its format. */
export interface DumpContent {
  readonly format: 'elf-core' | 'xen-core' | 'lime' | 'raw';
  /** `machine` where the page tables in it hold machine frames (Xen PV). */
  readonly space: FrameReader['space'];
  readonly segments: readonly DumpSegment[];
  /** Undefined for formats that have none. */
  readonly registers: readonly VcpuRegisters[] | undefined;
}

/** EFER is in no dump format; these have 64-bit kernels only, which run with SCE, LME, LMA and NXE. */
export const ASSUMED_EFER = 0xd01n;
