import { addressOf, ProcessMemory, RangeList } from '../process-memory.ts';
import { awaitStop, ENDED, goOn, interrupt, nap, registersOf, type ThreadRegisters } from './ptrace.ts';

/** Number of the system call, and results of a call that was cut short (arch/x86/entry/syscalls, linux/errno.h). */
const FUTEX = 202;
const [RESTART_FIRST, RESTART_LAST] = [-516, -512];
/** Mask of the futex command, `FUTEX_WAIT`, and the value of a C library lock with waiters (nptl/lowlevellock.h). */
const FUTEX_COMMAND = 0x7fn;
const FUTEX_WAIT = 0n;
const LOCK_CONTENDED = 2n;

/** Shortest and longest time that a thread runs between two looks; longer if the host gives it no CPU. */
const FIRST_NAP_US = 5;
const LAST_NAP_US = 1_000;
/** Bytes of code that identify the start of a translated block, and bytes before a thread that may belong to it. */
const CODE_BYTES = 16;
const BEFORE_BYTES = 8;

const code = new Uint8Array(new ArrayBuffer(1024));
const local = new RangeList();
const remote = new RangeList();

/**
 * Leads a stopped thread of a translating QEMU (TCG) to a point where no guest instruction is half done: the start of a
 * translated block, which each of them has between two instructions, or the wait of a halted CPU. The thread runs for
 * short moments until it is found there.
 *
 * KVM does not need this: a stopped thread has left the guest between two instructions. Translated code runs one
 * instruction as several of the host, and may be about to write back a word that it has read.
 *
 * @param signal signal that the thread has yet to get
 * @param end time limit, by `performance.now()`
 * @returns the signal that it has yet to get; undefined when it was not found there, and then it may run
 */
export function leadToBorder(pid: number, thread: number, signal: number, end: number): number | undefined {
  const memory = new ProcessMemory(pid);
  let pending = signal;
  let before = 0;
  for (let us = FIRST_NAP_US; ; ) {
    const registers = registersOf(thread);
    if (registers === undefined) return undefined;
    if (waits(registers) || isBlockStart(memory, registers)) return pending;
    // It was stopped again before it got a CPU.
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

/** Whether it waits in a system call, except for a lock, which may be taken in the middle of an instruction. */
function waits({ call, result, args: [, operation, value] }: ThreadRegisters): boolean {
  if (call < 0 || result < RESTART_FIRST || result > RESTART_LAST) return false;
  const isLock =
    call === FUTEX && (operation & FUTEX_COMMAND) === FUTEX_WAIT && (value & 0xffff_ffffn) === LOCK_CONTENDED;
  return !isLock;
}

/**
 * Whether a thread is about to run one of the first instructions of a translated block. They check for an exit request
 * in a counter below the guest's state, to which RBP points (QEMU accel/tcg, `gen_tb_start()`): `mov -N(%rbp), %r; test
 * %r, %r; jl`. None of the three touches the guest.
 */
function isBlockStart(memory: ProcessMemory, { rip }: ThreadRegisters): boolean {
  const length = BEFORE_BYTES + CODE_BYTES;
  local.set(0, addressOf(code), length);
  remote.set(0, rip - BEFORE_BYTES, length);
  return memory.read(local, 1, remote, 1) === length && standsAtBlockStart(code, BEFORE_BYTES);
}

/** @param at offset of the next instruction, with {@link BEFORE_BYTES} before and {@link CODE_BYTES} from there on */
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

/** @param bytes code, at least {@link CODE_BYTES} */
export function startsBlock(bytes: Uint8Array): boolean {
  // Either of the first two instructions may have a prefix for the upper registers.
  let at = isPrefix(bytes[0]!) ? 1 : 0;
  const [load, place, distance] = [bytes[at]!, bytes[at + 1]!, bytes[at + 2]!];
  // mov r32, disp8(%rbp) has mod 01 and rm 101; the displacement is negative.
  if (load !== 0x8b || (place & 0xc7) !== 0x45 || distance < 0x80) return false;
  at += isPrefix(bytes[at + 3]!) ? 4 : 3;
  const register = (place >> 3) & 7;
  // The next is test r32, r32 of the same register.
  if (bytes[at] !== 0x85 || bytes[at + 1] !== (0xc0 | (register << 3) | register)) return false;
  return bytes[at + 2] === 0x0f && bytes[at + 3] === 0x8c;
}

function isPrefix(byte: number): boolean {
  return byte >= 0x40 && byte <= 0x4f;
}
