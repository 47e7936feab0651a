import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ExtractRequest } from '../engine.ts';
import type { DwarfFile } from './dwarf-file.ts';
import type { Unit } from './unit.ts';

/** Milliseconds of work between two turns of the event loop, in which a signal or a timer gets its chance. */
const TURN = 50;

/** To be awaited after each unit: tells the progress now and then, and stops when the request is aborted. */
export function pauses(
  dwarf: DwarfFile,
  { progress, signal }: ExtractRequest,
): (unit: Unit) => Promise<void> {
  const total = dwarf.size;
  let last = performance.now();
  return async (unit) => {
    signal?.throwIfAborted();
    if (performance.now() - last < TURN) return;
    progress?.(unit.offset + unit.size, total, 'reading DWARF');
    await nextTurn();
    signal?.throwIfAborted();
    last = performance.now();
  };
}
