import type { KernelFile } from '../elf/kernel-file.ts';
import { ExtractError } from '../error.ts';
import { SCHEDULER_CODE, SWITCH } from '../structures.ts';
import type { DwarfFile } from './dwarf-file.ts';
import type { Unit } from './unit.ts';

/**
 * Source file of the scheduler, which uses every structure that we need: kernel/sched.c became kernel/sched/core.c with
 * "sched: Move all scheduler bits into kernel/sched/", 3.3-rc1.
 */
const SCHEDULER = /(?:^|\/)kernel\/sched(?:\/core)?\.c$/;
const SWITCHING = /(?:^|\/)arch\/x86\/kernel\/process(?:_64)?\.c$/;

/**
 * Finds the unit that defines the scheduler's structures; null if no unit has its name. If the file tells by address
 * which unit has the scheduler's code, that one is tried first, since a kernel has thousands.
 * @param file that `dwarf` belongs to
 * @param pause is awaited after each unit
 * @throws ExtractError `corrupt-dwarf`
 */
export async function findSchedulerUnit(
  dwarf: DwarfFile,
  file: Pick<KernelFile, 'lookup'>,
  pause: (unit: Unit) => Promise<void>,
): Promise<Unit | null> {
  const likely = unitByAddress(dwarf, file, SCHEDULER_CODE, SCHEDULER);
  if (likely) return likely;
  for (const unit of dwarf.units()) {
    if (SCHEDULER.test(dwarf.unitName(unit) ?? '')) return unit;
    await pause(unit);
  }
  return null;
}

/**
 * Finds the unit with the CPU's task state segments, if they are requested and not found yet; null if the file does not
 * tell it by address.
 */
export function findSwitchUnit(
  dwarf: DwarfFile,
  file: Pick<KernelFile, 'lookup'>,
  wanted: ReadonlySet<string>,
  found: ReadonlySet<string>,
): Unit | null {
  const isMissing = SWITCH.structures.some((name) => wanted.has(name) && !found.has(name));
  return isMissing ? unitByAddress(dwarf, file, SWITCH.code, SWITCHING) : null;
}

function unitByAddress(
  dwarf: DwarfFile,
  file: Pick<KernelFile, 'lookup'>,
  name: string,
  source: RegExp,
): Unit | null {
  const code = file.lookup([name]).get(name);
  if (!code) return null;
  try {
    const unit = dwarf.unitWithCode(code.address);
    return unit && source.test(dwarf.unitName(unit) ?? '') ? unit : null;
  } catch (error) {
    // The hint was wrong; a corrupt unit will be found by the slow way.
    if (error instanceof ExtractError) return null;
    throw error;
  }
}
