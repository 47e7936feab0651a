import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ExtractRequest } from '../engine.ts';
import type { DwarfFile } from './dwarf-file.ts';
import type { Unit } from './unit.ts';

/** Milliseconds of work between two turns of the event loop, in which signals and timers are handled. */
const TURN = 50;

/** Makes a function to await after each unit: it reports progress now and then, and stops if the request is aborted. */
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
