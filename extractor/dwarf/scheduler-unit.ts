import type { KernelFile } from '../elf/kernel-file.ts';
import { ExtractError } from '../error.ts';
import { BESIDE, SCHEDULER_CODE } from '../structures.ts';
import type { DwarfFile } from './dwarf-file.ts';
import type { Unit } from './unit.ts';

/**
 * Source file of the scheduler, which uses every structure that we need: kernel/sched.c became kernel/sched/core.c with
 * "sched: Move all scheduler bits into kernel/sched/", 3.3-rc1.
 */
const SCHEDULER = /(?:^|\/)kernel\/sched(?:\/core)?\.c$/;

/**
 * Finds the unit that defines the scheduler's structures; null if no unit has its name. If the file tells by address
 * which unit has the scheduler's code, that one is tried first, since a kernel has thousands.
 * @param file that `dwarf` belongs to
 * @param pause is awaited after each unit
 * @throws ExtractError `corrupt-dwarf`
 */
export function findSchedulerUnit(
  dwarf: DwarfFile,
  file: Pick<KernelFile, 'lookup'>,
  pause: (unit: Unit) => Promise<void>,
): Promise<Unit | null> {
  return likelyUnit(dwarf, file, SCHEDULER_CODE, SCHEDULER, pause);
}

/** A unit beside the scheduler's, and what it is read for. */
export interface UnitBeside {
  readonly unit: Unit;
  readonly structures: ReadonlySet<string>;
}

/**
 * Finds the units with structures of {@link BESIDE} that are requested, not found yet, and the type of a variable that
 * the file has.
 * @param pause is awaited after each unit that is looked at by name, where the file does not tell by address
 */
export async function unitsBeside(
  dwarf: DwarfFile,
  file: Pick<KernelFile, 'lookup'>,
  wanted: ReadonlySet<string>,
  found: ReadonlySet<string>,
  pause: (unit: Unit) => Promise<void>,
): Promise<UnitBeside[]> {
  const units: UnitBeside[] = [];
  for (const { variable, code, source, structures } of BESIDE) {
    const missing = structures.filter((name) => wanted.has(name) && !found.has(name));
    if (missing.length === 0 || !file.lookup([variable]).has(variable)) continue;
    const unit = await likelyUnit(dwarf, file, code, source, pause);
    if (unit !== null) units.push({ unit, structures: new Set<string>(missing) });
  }
  return units;
}

/** The unit of a source file: by the address of a function in it, or else by its name. */
async function likelyUnit(
  dwarf: DwarfFile,
  file: Pick<KernelFile, 'lookup'>,
  code: string,
  source: RegExp,
  pause: (unit: Unit) => Promise<void>,
): Promise<Unit | null> {
  const likely = unitByAddress(dwarf, file, code, source);
  if (likely) return likely;
  for (const unit of dwarf.units()) {
    if (source.test(dwarf.unitName(unit) ?? '')) return unit;
    await pause(unit);
  }
  return null;
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
