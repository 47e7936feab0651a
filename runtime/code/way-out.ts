import type { Field } from '../layout/field.ts';
import type { SymbolName } from '../members/symbols.ts';
import type { Code } from './decode.ts';
import { depthAtSave, type Returns, returnsFrom } from './frames.ts';

/**
 * The frames on the kernel stack of a thread that an interrupt preempted on the way back to user mode: those of
 * `__schedule()`, `schedule()`, its callers, and the last one, which the interrupt's entry code called.
 */
export interface WayOut {
  /** Bytes from a thread's saved stack pointer to the return address of `__switch_to_asm()`. */
  readonly saved: number;
  /** Returns into `__schedule()` from `__switch_to_asm()`. */
  readonly switching: Returns;
  /** Returns into `schedule()` from `__schedule()`. */
  readonly scheduling: Returns;
  /** Returns into the functions that call `schedule()` on the way to user mode, and into their callers. */
  readonly leaving: Returns;
  /** Those of `leaving` that only an interrupt's entry code calls. */
  readonly last: Returns;
}

/** All functions of the way; depending on the kernel each may be inlined in the next. */
const LOOPS = ['exit_to_user_mode_loop', 'exit_to_user_mode_prepare'] as const;
/** "x86/entry: Convert various system vectors", 5.8. System calls use other functions. */
const EXITS = ['irqentry_exit_to_user_mode', 'irqentry_exit'] as const;

/** Access to the kernel's functions. */
export interface Functions {
  codeOf(name: SymbolName): Code | null;
  address(name: SymbolName): bigint | undefined;
}

/** @returns a clause for a message if the code does not show it: `schedule() does not call __schedule()` */
export function wayOut({ codeOf, address }: Functions, sp: Pick<Field, 'offset' | 'size'>): WayOut | string {
  const returns = (from: SymbolName, to: SymbolName): Returns => {
    const [code, entry, target] = [codeOf(from), address(from), address(to)];
    if (code === null || entry === undefined || target === undefined) return new Map();
    return returnsFrom(code, entry, target);
  };
  const all = (froms: readonly SymbolName[]): Returns =>
    new Map(
      froms.flatMap((from) => ['schedule', ...LOOPS].flatMap((to) => [...returns(from, to as SymbolName)])),
    );
  const unknown = (['__switch_to_asm', '__schedule', 'schedule'] as const).find(
    (name) => address(name) === undefined,
  );
  if (unknown !== undefined) return `the layout has no symbol ${unknown}: extract it again, with symbols`;
  const switching = address('__switch_to_asm');
  const code = codeOf('__switch_to_asm');
  const saved = switching === undefined || code === null ? null : depthAtSave(code, switching, sp);
  if (saved === null) return '__switch_to_asm() does not show where it saves a stack pointer';
  const way: WayOut = {
    saved,
    switching: returns('__schedule', '__switch_to_asm'),
    scheduling: returns('schedule', '__schedule'),
    leaving: all(LOOPS),
    last: all(EXITS),
  };
  if (way.switching.size === 0) return '__schedule() does not show where it calls __switch_to_asm()';
  if (way.scheduling.size === 0) return 'schedule() does not show where it calls __schedule()';
  if (way.last.size === 0) return `neither of ${EXITS.join('(), ')}() shows where it calls schedule()`;
  return way;
}
