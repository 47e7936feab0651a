import type { ExtractRequest } from './engine.ts';
import { spellings } from './names.ts';
import { ENUMERATORS, STRUCTURES } from './needs.ts';

/** A file without these is no kernel that domsched can work on. */
const REQUIRED: readonly string[] = ['rq', 'task_struct'];

/** A function of the scheduler in every release: the unit with it defines the scheduler's structures. */
export const SCHEDULER_CODE = 'schedule';

/**
 * Structures that the scheduler's own unit need not have, each list with a variable of such a type, a function in the
 * source file that defines the variable, and that file. gcc describes what a unit can see; clang only what it uses as a
 * whole.
 */
export const BESIDE = [
  {
    variable: 'cpu_tss_rw',
    code: '__switch_to_xtra',
    source: /(?:^|\/)arch\/x86\/kernel\/process\.c$/,
    structures: ['tss_struct'],
  },
  {
    variable: 'pcpu_hot',
    code: 'cpu_init',
    source: /(?:^|\/)arch\/x86\/kernel\/cpu\/common\.c$/,
    structures: ['pcpu_hot'],
  },
] as const;

/** Which structures a command requests; `scheduler` means everything that the runtime reads. */
export type Selection =
  | { kind: 'scheduler' }
  | { kind: 'all' }
  /** `names` in the user's spelling, including `NAME@SOURCE-FILE`; with `scheduler`, also the scheduler's. */
  | { kind: 'named'; names: readonly string[]; scheduler: boolean };

/** The engines' request for a selection. */
export function requestFor(
  selection: Selection,
): Pick<ExtractRequest, 'structs' | 'enums' | 'constants' | 'required' | 'thorough' | 'units'> {
  const scheduler = { enums: [], constants: ENUMERATORS };
  if (selection.kind === 'all') return { structs: 'all', required: [], ...scheduler };
  const given = (selection.kind === 'named' ? selection.names : []).map((text) => {
    const at = text.indexOf('@', 1);
    return at < 0 ? { name: text } : { name: text.slice(0, at), unit: text.slice(at + 1) };
  });
  const named = given.map(({ name }) => name);
  const withScheduler = selection.kind === 'scheduler' || selection.scheduler;
  const names = withScheduler ? [...STRUCTURES, ...named] : named;
  return {
    structs: [...new Set(names.flatMap(spellings))],
    required: [...new Set([...(withScheduler ? REQUIRED : []), ...named].map((name) => spellings(name)[0]!))],
    ...(withScheduler ? scheduler : { ...scheduler, constants: [] }),
    // The scheduler's unit defines its own structures; for any other name a driver may have a structure of its own.
    thorough: given.some(({ name, unit }) => unit === undefined && !STRUCTURES.includes(name)),
    units: Object.fromEntries(
      given.flatMap(({ name, unit }) =>
        unit === undefined ? [] : spellings(name).map((each) => [each, unit]),
      ),
    ),
  };
}
