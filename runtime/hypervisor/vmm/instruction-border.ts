import { addressOf, ProcessMemory, RangeList } from '../process-memory.ts';
import { awaitStop, ENDED, goOn, interrupt, nap, registersOf, type ThreadRegisters } from './ptrace.ts';

/** Numbers of system calls, and what a call that was cut short gives (arch/x86/entry/syscalls, linux/errno.h). */
const FUTEX = 202;
const [RESTART_FIRST, RESTART_LAST] = [-516, -512];
/** `FUTEX_WAIT` without its flags, and the value at which a lock of the C library waits (nptl/lowlevellock.h). */
const FUTEX_COMMAND = 0x7fn;
const FUTEX_WAIT = 0n;
const LOCK_CONTENDED = 2n;

/** How long a thread runs between two looks, at first and at most: longer where the host gives it no CPU. */
const FIRST_NAP_US = 5;
const LAST_NAP_US = 1_000;
/** Bytes of code that tell the start of a translated block, and those before a thread that may belong to it. */
const CODE_BYTES = 16;
const BEFORE_BYTES = 8;

const code = new Uint8Array(new ArrayBuffer(1024));
const local = new RangeList();
const remote = new RangeList();

/**
 * Has a stopped thread of a translating QEMU (TCG) stand where no instruction of the guest is half done: at the start of a
 * translated block, which every one of them has between two instructions, or in the wait of a halted CPU. It is let go on
 * for moments until it is found there.
 *
 * KVM needs none of this: a thread that was stopped has left the guest between two instructions. Translated code does one
 * instruction in several of the host, and a word that was read for it may be about to be written back.
 *
 * @param signal that the thread is yet to get
 * @param end of `performance.now()`
 * @returns the signal that it is yet to get; undefined when it was not found there: it may run then
 */
export function leadToBorder(pid: number, thread: number, signal: number, end: number): number | undefined {
  const memory = new ProcessMemory(pid);
  let pending = signal;
  let before = 0;
  for (let us = FIRST_NAP_US; ; ) {
    const registers = registersOf(thread);
    if (registers === undefined) return undefined;
    if (waits(registers) || isBlockStart(memory, registers)) return pending;
    // Stopped again before it had a CPU.
    us =
      registers.rip === before ? Math.min(2 * us, LAST_NAP_US) : FIRST_NAP_US + Math.random() * FIRST_NAP_US;
    before = registers.rip;
    if (performance.now() > end || !goOn(thread, pending)) return undefined;
    nap(us);
    interrupt(thread);
    const found = awaitStop(thread, end);
    if (found === undefined || found === ENDED) return undefined;
    pending = found;
  }
}

/** In a system call that waits for something, but for a lock: that one may be taken in the middle of an instruction. */
function waits({ call, result, args: [, operation, value] }: ThreadRegisters): boolean {
  if (call < 0 || result < RESTART_FIRST || result > RESTART_LAST) return false;
  const isLock =
    call === FUTEX && (operation & FUTEX_COMMAND) === FUTEX_WAIT && (value & 0xffff_ffffn) === LOCK_CONTENDED;
  return !isLock;
}

/**
 * Whether a thread is about to run one of the first instructions of a translated block: whether to leave is asked there, of
 * a counter below the guest's state, which RBP has (QEMU accel/tcg, `gen_tb_start()`): `mov -N(%rbp), %r; test %r, %r; jl`.
 * None of the three touches the guest.
 */
function isBlockStart(memory: ProcessMemory, { rip }: ThreadRegisters): boolean {
  const length = BEFORE_BYTES + CODE_BYTES;
  local.set(0, addressOf(code), length);
  remote.set(0, rip - BEFORE_BYTES, length);
  return memory.read(local, 1, remote, 1) === length && standsAtBlockStart(code, BEFORE_BYTES);
}

/** @param at byte of the code that is run next; {@link BEFORE_BYTES} before it, and as many as tell behind it, are given */
export function standsAtBlockStart(bytes: Uint8Array, at: number): boolean {
  // Lengths of the load alone, and of load and test, with or without a prefix.
  return [0, 3, 4, 5, 7].some((past) => {
    const start = bytes.subarray(at - past);
    if (!startsBlock(start)) return false;
    const load = isPrefix(start[0]!) ? 4 : 3;
    const test = load + (isPrefix(start[load]!) ? 3 : 2);
    return past === 0 || past === load || past === test;
  });
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
