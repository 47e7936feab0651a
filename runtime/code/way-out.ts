import type { Field } from '../layout/field.ts';
import type { SymbolName } from '../members/symbols.ts';
import type { Code } from './decode.ts';
import { depthAtSave, type Returns, returnsFrom } from './frames.ts';

/**
 * The frames that a thread has on its kernel stack which an interrupt preempted on the way back to user mode: those of
 * `__schedule()`, `schedule()`, what calls it, and the last one, which the entry code of the interrupt called.
 */
export interface WayOut {
  /** Bytes from a thread's saved stack pointer to where `__switch_to_asm()` returns to. */
  readonly saved: number;
  /** Of `__schedule()` where it calls `__switch_to_asm()`. */
  readonly switching: Returns;
  /** Of `schedule()` where it calls `__schedule()`. */
  readonly scheduling: Returns;
  /** Of the functions that call `schedule()` on the way to user mode, and of those that call them. */
  readonly leaving: Returns;
  /** Of these the ones that an interrupt's entry code calls, and nothing else. */
  readonly last: Returns;
}

/** Every function of the way, by kernel: each is inlined in the next in some. */
const LOOPS = ['exit_to_user_mode_loop', 'exit_to_user_mode_prepare'] as const;
/** "x86/entry: Convert various system vectors", 5.8; system calls have ways of their own. */
const EXITS = ['irqentry_exit_to_user_mode', 'irqentry_exit'] as const;

/** What it takes to know a kernel's functions. */
export interface Functions {
  codeOf(name: SymbolName): Code | null;
  address(name: SymbolName): bigint | undefined;
}

/** @returns a clause for a message where the code does not show it: `schedule() does not call __schedule()` */
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
