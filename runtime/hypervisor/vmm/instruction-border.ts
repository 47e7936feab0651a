import { addressOf, ProcessMemory, RangeList } from '../process-memory.ts';
import { awaitStop, ENDED, interrupt, registersOf, step, type ThreadRegisters } from './ptrace.ts';

/** Numbers of system calls, and what a call that was cut short gives (arch/x86/entry/syscalls, linux/errno.h). */
const FUTEX = 202;
const [RESTART_FIRST, RESTART_LAST] = [-516, -512];
/** `FUTEX_WAIT` without its flags, and the value at which a lock of the C library waits (nptl/lowlevellock.h). */
const FUTEX_COMMAND = 0x7fn;
const FUTEX_WAIT = 0n;
const LOCK_CONTENDED = 2n;

/** Instructions of the host that a thread is led on by at most. */
const MAX_STEPS = 20_000;
/** A single one takes microseconds, unless it is a system call that waits. */
const STEP_LIMIT_MS = 10;
/** Bytes of code that tell the start of a translated block. */
const CODE_BYTES = 16;

const code = new Uint8Array(new ArrayBuffer(1024));
const local = new RangeList();
const remote = new RangeList();

/**
 * Leads a stopped thread of a translating QEMU (TCG) on to where no instruction of the guest is half done: to the start of
 * a translated block, which every one of them has between two instructions, or a wait of a halted CPU.
 *
 * KVM needs none of this: a thread that was stopped has left the guest between two instructions. Translated code does one
 * instruction in several of the host, and a word that was read for it may be about to be written back.
 *
 * @param signal that the thread is yet to get
 * @param end of `performance.now()`
 * @returns the signal that it is yet to get; undefined when it did not come there: it may run then
 */
export function leadToBorder(pid: number, thread: number, signal: number, end: number): number | undefined {
  const memory = new ProcessMemory(pid);
  for (let steps = 0, pending = signal; steps <= MAX_STEPS; steps++) {
    const registers = registersOf(thread);
    if (registers === undefined) return undefined;
    if (waits(registers) || isBlockStart(memory, registers)) return pending;
    if (performance.now() > end || !step(thread, pending)) return undefined;
    let found = awaitStop(thread, performance.now() + STEP_LIMIT_MS);
    if (found === undefined) {
      // The step was a system call, and waits.
      interrupt(thread);
      found = awaitStop(thread, end);
    }
    if (found === undefined || found === ENDED) return undefined;
    pending = found;
  }
  return undefined;
}

/** In a system call that waits for something, but for a lock: that one may be taken in the middle of an instruction. */
function waits({ call, result, args: [, operation, value] }: ThreadRegisters): boolean {
  if (call < 0 || result < RESTART_FIRST || result > RESTART_LAST) return false;
  const isLock =
    call === FUTEX && (operation & FUTEX_COMMAND) === FUTEX_WAIT && (value & 0xffff_ffffn) === LOCK_CONTENDED;
  return !isLock;
}

/**
 * Whether a thread is about to run the first instruction of a translated block: whether to leave is asked there, of a
 * counter below the guest's state, which RBP has (QEMU accel/tcg, `gen_tb_start()`): `mov -N(%rbp), %r; test %r, %r; jl`.
 */
function isBlockStart(memory: ProcessMemory, { rip }: ThreadRegisters): boolean {
  local.set(0, addressOf(code), CODE_BYTES);
  remote.set(0, rip, CODE_BYTES);
  return memory.read(local, 1, remote, 1) === CODE_BYTES && startsBlock(code);
}

/** @param bytes of code, at least {@link CODE_BYTES} */
export function startsBlock(bytes: Uint8Array): boolean {
  // A prefix for the upper registers may come before either of the first two.
  let at = isPrefix(bytes[0]!) ? 1 : 0;
  const [load, place, distance] = [bytes[at]!, bytes[at + 1]!, bytes[at + 2]!];
  // mov r32, disp8(%rbp): mod 01, rm 101, and the displacement is negative.
  if (load !== 0x8b || (place & 0xc7) !== 0x45 || distance < 0x80) return false;
  at += isPrefix(bytes[at + 3]!) ? 4 : 3;
  const register = (place >> 3) & 7;
  // test r32, r32 of that register.
  if (bytes[at] !== 0x85 || bytes[at + 1] !== (0xc0 | (register << 3) | register)) return false;
  return bytes[at + 2] === 0x0f && bytes[at + 3] === 0x8c;
}

function isPrefix(byte: number): boolean {
  return byte >= 0x40 && byte <= 0x4f;
}
