import type { KernelFile } from '../elf/kernel-file.ts';
import { ExtractError } from '../error.ts';
import { SCHEDULER_CODE } from '../structures.ts';
import type { DwarfFile } from './dwarf-file.ts';
import type { Unit } from './unit.ts';

/**
 * Source file of the scheduler: "sched: Move all scheduler bits into kernel/sched/", 3.3-rc1, made kernel/sched.c
 * kernel/sched/core.c. It sees every structure that the scheduler works on.
 */
const SCHEDULER = /(?:^|\/)kernel\/sched(?:\/core)?\.c$/;

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
  const likely = unitByAddress(dwarf, file);
  if (likely) return likely;
  for (const unit of dwarf.units()) {
    if (SCHEDULER.test(dwarf.unitName(unit) ?? '')) return unit;
    await pause(unit);
  }
  return null;
}

function unitByAddress(dwarf: DwarfFile, file: Pick<KernelFile, 'lookup'>): Unit | null {
  const code = file.lookup([SCHEDULER_CODE]).get(SCHEDULER_CODE);
  if (!code) return null;
  try {
    const unit = dwarf.unitWithCode(code.address);
    return unit && SCHEDULER.test(dwarf.unitName(unit) ?? '') ? unit : null;
  } catch (error) {
    // A hint that leads nowhere; a unit that is corrupt is met again on the long way.
    if (error instanceof ExtractError) return null;
    throw error;
  }
}
