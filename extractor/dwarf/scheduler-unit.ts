import type { KernelFile } from '../elf/kernel-file.ts';
import { ExtractError } from '../error.ts';
import { SCHEDULER_CODE, SWITCH } from '../structures.ts';
import type { DwarfFile } from './dwarf-file.ts';
import type { Unit } from './unit.ts';

/**
 * Source file of the scheduler: "sched: Move all scheduler bits into kernel/sched/", 3.3-rc1, made kernel/sched.c
 * kernel/sched/core.c. It sees every structure that the scheduler works on.
 */
const SCHEDULER = /(?:^|\/)kernel\/sched(?:\/core)?\.c$/;
const SWITCHING = /(?:^|\/)arch\/x86\/kernel\/process(?:_64)?\.c$/;

/**
 * The unit that defines the scheduler's structures; null where no unit has its name. Where the file says by address
 * which unit has the scheduler's code, that one is looked at first: a kernel has thousands.
 * @param file that `dwarf` is of
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
 * The unit that has the CPU's task state segments, where they are asked for and not found yet; null where
 * the file does not say by address which that is.
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
    // A hint that leads nowhere; a unit that is corrupt is met again on the long way.
    if (error instanceof ExtractError) return null;
    throw error;
  }
}
