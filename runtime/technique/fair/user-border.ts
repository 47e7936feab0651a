import { follow, get } from '../../edit/member.ts';
import { type MemoryView, wordIn } from '../../edit/memory-view.ts';
import type { GuestVirtual } from '../../memory/address.ts';
import type { FairGuest } from './members.ts';

/** Words from the stack pointer of a preempted thread to its registers at most: two frames and what they save. */
const MAX_WORDS = 48;
/** Bytes into `schedule()` and into the way out of an interrupt at which their calls return at most. */
const SCHEDULE_BYTES = 256n;
const EXIT_BYTES = 512n;
/** arch/x86/include/asm/page_64_types.h, THREAD_SIZE: stacks are aligned to it. */
const STACK_SIZES = [16_384, 32_768];
/** Words that a kernel with FRED leaves free at the top (TOP_OF_KERNEL_STACK_PADDING). */
const PADDING_WORDS = [0, 2];
/** `cs` in `pt_regs` of user mode has privilege level 3. It is the fourth word from the end: cs, flags, sp, ss. */
const CS_FROM_END = 4;

/**
 * Whether a thread that waits for a CPU was preempted on the way out of an interrupt into user mode, so that it holds
 * no lock, is in no RCU reader and no system call of its own: the last frames of its kernel stack are
 * `__schedule()`, `schedule()`, at most one more, and `irqentry_exit_to_user_mode()`, and above its caller's return
 * address there is nothing but the registers of user mode. Anything else, a stale word that looks like an address
 * included, says no.
 */
export function isAtUserBorder(guest: FairGuest, memory: MemoryView, task: GuestVirtual): boolean {
  const { task_struct, registers } = guest.members;
  const stack = follow(memory, task, task_struct.stack);
  const pointer = get(memory, task, task_struct.sp);
  for (const size of STACK_SIZES) {
    for (const padding of PADDING_WORDS) {
      const end = stack + BigInt(size - 8 * padding);
      const words = Number(end - pointer) / 8 - registers / 8;
      if (!Number.isInteger(words) || words < 4 || words > MAX_WORDS) continue;
      const frames = memory.block(pointer as GuestVirtual, 8 * words + registers);
      if (isWayOut(guest, frames, words)) return true;
    }
  }
  return false;
}

function isWayOut(guest: FairGuest, frames: DataView, words: number): boolean {
  const cs = wordIn(frames, frames.byteLength - 8 * CS_FROM_END, 8);
  if ((cs & 3n) !== 3n) return false;
  const calls: { at: number; address: bigint }[] = [];
  for (let at = 0; at < words; at++) {
    const address = wordIn(frames, 8 * at, 8);
    if (address >= guest.text.start && address < guest.text.end) calls.push({ at, address });
  }
  // __schedule, schedule, perhaps the loop that calls it, the way out, the entry code.
  if (calls.length !== 4 && calls.length !== 5) return false;
  const within = (address: bigint, start: bigint, bytes: bigint) =>
    address > start && address < start + bytes;
  const entry = calls.at(-1)!;
  const exit = calls.at(-2)!;
  return (
    within(calls[1]!.address, guest.schedule, SCHEDULE_BYTES) &&
    within(exit.address, guest.exitToUser, EXIT_BYTES) &&
    entry.at === words - 1
  );
}
