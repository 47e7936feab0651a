import type { DwarfFile } from './dwarf-file.ts';
import type { Unit } from './unit.ts';

/**
 * Source file of the scheduler: "sched: Move all scheduler bits into kernel/sched/", 3.3-rc1, made kernel/sched.c
 * kernel/sched/core.c. It sees every structure that the scheduler works on.
 */
const SCHEDULER = /(?:^|\/)kernel\/sched(?:\/core)?\.c$/;

/**
 * The unit that defines the scheduler's structures; null where no unit has its name.
 * @param pause is awaited after each unit
 * @throws ExtractError `corrupt-dwarf`
 */
export async function findSchedulerUnit(
  dwarf: DwarfFile,
  pause: (unit: Unit) => Promise<void>,
): Promise<Unit | null> {
  for (const unit of dwarf.units()) {
    if (SCHEDULER.test(dwarf.unitName(unit) ?? '')) return unit;
    await pause(unit);
  }
  return null;
}
