import type { WayOut } from '../../code/way-out.ts';
import { follow, get } from '../../edit/member.ts';
import { type MemoryView, wordIn } from '../../edit/memory-view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import type { FairGuest } from './members.ts';

/** Most words from the stack pointer of a preempted thread to its registers. */
const MAX_WORDS = 64;
/** Most frames between `schedule()` and the entry code. */
const MAX_FRAMES = 3;
/** THREAD_SIZE (arch/x86/include/asm/page_64_types.h); stacks are aligned to it. */
const STACK_SIZES = [16_384, 32_768];
/** Words that a kernel with FRED leaves free at the top of a stack (TOP_OF_KERNEL_STACK_PADDING). */
const PADDING_WORDS = [0, 2];
/** Bits of `cs` that have the privilege level, and that of user mode (SDM volume 3, 6.5). */
const USER = 3n;

/**
 * Whether a waiting thread was preempted on the way out of an interrupt into user mode. Then it holds no lock and is in
 * no RCU reader and no system call. The proof is its stack: from the stack pointer up it has the frames of
 * {@link WayOut}, each as large as the function's code makes it, and the registers of user mode right above the last
 * return address.
 */
export function isAtUserBorder(
  { members, wayOut }: Pick<FairGuest, 'members' | 'wayOut'>,
  memory: MemoryView,
  task: GuestVirtual,
): boolean {
  const { task_struct, pt_regs } = members;
  const stack = follow(memory, task, task_struct.stack);
  const pointer = get(memory, task, task_struct.sp);
  for (const size of STACK_SIZES) {
    for (const padding of PADDING_WORDS) {
      const end = stack + BigInt(size - 8 * padding);
      const words = Number(end - pointer) / 8 - pt_regs.size / 8;
      if (!Number.isInteger(words) || words < 4 || words > MAX_WORDS) continue;
      const frames = memory.block(pointer as GuestVirtual, 8 * words + pt_regs.size);
      const cs = wordIn(frames, 8 * words + pt_regs.cs.offset, pt_regs.cs.size);
      if ((cs & USER) === USER && isWayOut(wayOut, frames, words)) return true;
    }
  }
  return false;
}

function isWayOut(wayOut: WayOut, stack: DataView, words: number): boolean {
  /** Byte offset of the next return address. */
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
