import { DomschedError } from '../../error.ts';
import { FileMapping } from '../process-memory.ts';
import type { ProcessMap } from './process-maps.ts';

/**
 * Our own mapping of the file behind a mapping of QEMU. Undefined if we may not open it this way (that takes
 * CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN), or if it cannot be mapped.
 */
export function fileOf(pid: number, map: ProcessMap, known: readonly FileMapping[]): FileMapping | undefined {
  const isIt = ({ device, inode }: FileMapping) =>
    inode === map.inode && majorOf(device) === map.major && minorOf(device) === map.minor;
  const before = known.find(isIt);
  if (before !== undefined) return before;
  let mapping: FileMapping;
  try {
    mapping = new FileMapping(`/proc/${pid}/map_files/${map.start.toString(16)}-${map.end.toString(16)}`);
  } catch (error) {
    if (error instanceof DomschedError) return undefined;
    throw error;
  }
  if (isIt(mapping)) return mapping;
  // It was replaced just now, or its file system numbers files differently (btrfs, overlayfs).
  mapping.close();
  return undefined;
}

/** Key that is equal for two mappings of one file. */
export function keyOf({ device, inode }: FileMapping): string {
  return `${device}:${inode}`;
}

/** Splits a device number as the C library does (sys/sysmacros.h). */
function majorOf(device: number): number {
  const number = BigInt(device);
  return Number(((number >> 8n) & 0xfffn) | ((number >> 32n) & 0xffff_f000n));
}

function minorOf(device: number): number {
  const number = BigInt(device);
  return Number((number & 0xffn) | ((number >> 12n) & 0xffff_ff00n));
}
