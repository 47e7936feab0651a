import type { WayOut } from '../../code/way-out.ts';
import { follow, get } from '../../edit/member.ts';
import { type MemoryView, wordIn } from '../../edit/memory-view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import type { FairGuest } from './members.ts';

/** Words from the stack pointer of a preempted thread to its registers at most. */
const MAX_WORDS = 64;
/** Frames between `schedule()` and the entry code at most. */
const MAX_FRAMES = 3;
/** arch/x86/include/asm/page_64_types.h, THREAD_SIZE: stacks are aligned to it. */
const STACK_SIZES = [16_384, 32_768];
/** Words that a kernel with FRED leaves free at the top (TOP_OF_KERNEL_STACK_PADDING). */
const PADDING_WORDS = [0, 2];
/** `cs` in `pt_regs` of user mode has privilege level 3. It is the fourth word from the end: cs, flags, sp, ss. */
const CS_FROM_END = 4;

/**
 * Whether a thread that waits for a CPU was preempted on the way out of an interrupt into user mode, so that it holds
 * no lock, is in no RCU reader and no system call of its own: from its stack pointer up there are the frames of
 * {@link WayOut}, each as large as the function's code makes it, and right above the last one's return address the
 * registers of user mode.
 */
export function isAtUserBorder(
  { members, wayOut }: Pick<FairGuest, 'members' | 'wayOut'>,
  memory: MemoryView,
  task: GuestVirtual,
): boolean {
  const { task_struct, registers } = members;
  const stack = follow(memory, task, task_struct.stack);
  const pointer = get(memory, task, task_struct.sp);
  for (const size of STACK_SIZES) {
    for (const padding of PADDING_WORDS) {
      const end = stack + BigInt(size - 8 * padding);
      const words = Number(end - pointer) / 8 - registers / 8;
      if (!Number.isInteger(words) || words < 4 || words > MAX_WORDS) continue;
      const frames = memory.block(pointer as GuestVirtual, 8 * words + registers);
      if (isWayOut(wayOut, frames, words)) return true;
    }
  }
  return false;
}

function isWayOut(wayOut: WayOut, stack: DataView, words: number): boolean {
  const cs = wordIn(stack, stack.byteLength - 8 * CS_FROM_END, 8);
  if ((cs & 3n) !== 3n) return false;
  /** Of the word with the next return address, in bytes. */
  let at = wayOut.saved;
  const goUp = (returns: WayOut['leaving']): boolean => {
    const depth = at <= 8 * (words - 1) ? returns.get(wordIn(stack, at, 8)) : undefined;
    if (depth === undefined) return false;
    at += 8 + depth;
    return true;
  };
  if (!goUp(wayOut.switching) || !goUp(wayOut.scheduling)) return false;
  for (let frame = 0; frame < MAX_FRAMES; frame++) {
    if (goUp(wayOut.last)) return at === 8 * (words - 1);
    if (!goUp(wayOut.leaving)) return false;
  }
  return false;
}
