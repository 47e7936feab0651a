import koffi from 'koffi';

/** Requests and events of ptrace (include/uapi/linux/ptrace.h, arch/x86/include/uapi/asm/ptrace-abi.h). */
const PTRACE_CONT = 7;
const PTRACE_GETREGS = 12;
const PTRACE_DETACH = 17;
const PTRACE_GETEVENTMSG = 0x4201;
const PTRACE_SEIZE = 0x4206;
const PTRACE_INTERRUPT = 0x4207;
const PTRACE_EVENT_STOP = 128;
/** Flags of waitpid: do not wait; include threads. */
const WNOHANG = 1;
const WALL = 0x4000_0000;

/** Members of `user_regs_struct` (arch/x86/include/asm/user_64.h), by index of the 64-bit word. */
const REGISTERS = 27;
const [RBP, RAX, RSI, RDX, RDI, ORIG_RAX, RIP] = [4, 10, 13, 12, 14, 15, 16];

const libc = koffi.load('libc.so.6');
// All calls must come from JavaScript's own thread, because the kernel's tracer is a thread, not a process.
const ptrace = libc.func('int64_t ptrace(int64_t request, int64_t thread, int64_t address, int64_t data)');
const ptraceInto = libc.func('int64_t ptrace(int64_t request, int64_t thread, int64_t address, void *data)');
const usleep = libc.func('int usleep(unsigned int us)');
const waitpid = libc.func('int waitpid(int thread, void *status, int options)');

const status = new Int32Array(1);
const words = new BigUint64Array(REGISTERS);
const message = new BigUint64Array(1);

/** Registers of a stopped thread that show what it does. */
export interface ThreadRegisters {
  readonly rip: number;
  readonly rbp: number;
  /** Number of the system call that it is in or comes from, -1 for none, with its result and first arguments. */
  readonly call: number;
  readonly result: number;
  readonly args: readonly [bigint, bigint, bigint];
}

/** Why a thread stands still; `signal` is one that it has yet to get. */
export type Wait = { readonly kind: 'stopped'; readonly signal: number } | { readonly kind: 'ended' };

/** @returns 0 or an errno */
export function seize(thread: number): number {
  return Number(ptrace(PTRACE_SEIZE, thread, 0, 0)) === 0 ? 0 : koffi.errno();
}

/** @returns 0 or an errno */
export function interrupt(thread: number): number {
  return Number(ptrace(PTRACE_INTERRUPT, thread, 0, 0)) === 0 ? 0 : koffi.errno();
}

/** Lets a standing thread go on without us, with a signal that it was about to get. */
export function detach(thread: number, signal: number): boolean {
  return Number(ptrace(PTRACE_DETACH, thread, 0, signal)) === 0;
}

/**
 * Lets a standing thread go on, still seized. Single steps are never used: a stepped thread keeps the CPU's trap flag
 * if its tracer is killed, and the next instruction ends its process.
 * @returns whether it went on
 */
export function goOn(thread: number, signal: number): boolean {
  return Number(ptrace(PTRACE_CONT, thread, 0, signal)) === 0;
}

/** Whether a thread that we have seized stands: this request works only then. */
export function stands(thread: number): boolean {
  return Number(ptraceInto(PTRACE_GETEVENTMSG, thread, 0, message)) === 0;
}

/** Checks, without waiting, whether a seized thread has stopped or ended. @returns undefined for neither */
export function poll(thread: number): Wait | undefined {
  const found = Number(waitpid(thread, status, WALL | WNOHANG));
  if (found === 0) return undefined;
  const word = status[0]!;
  if (found < 0 || (word & 0xff) !== 0x7f) return { kind: 'ended' };
  const signal = (word >> 8) & 0xff;
  // A stop that we asked for and a group's stop carry no signal; any other stop is for a signal to the thread.
  return { kind: 'stopped', signal: word >> 16 === PTRACE_EVENT_STOP ? 0 : signal };
}

/** @returns undefined for a thread that does not stand */
export function registersOf(thread: number): ThreadRegisters | undefined {
  if (Number(ptraceInto(PTRACE_GETREGS, thread, 0, words)) !== 0) return undefined;
  return {
    rip: Number(words[RIP!]),
    rbp: Number(words[RBP!]),
    call: Number(BigInt.asIntN(64, words[ORIG_RAX!]!)),
    result: Number(BigInt.asIntN(64, words[RAX!]!)),
    args: [words[RDI!]!, words[RSI!]!, words[RDX!]!],
  };
}

/** The thread has ended. */
export const ENDED = -1;

/** Number of looks at a thread before we yield the CPU for a moment. */
const SPINS = 8;
const NAP_US = 5;

/**
 * Waits until a thread that we have seized stops.
 * @param end time limit, by `performance.now()`
 * @returns the signal that it has yet to get, 0 for none, or {@link ENDED}; undefined when it did not stop in time
 */
export function awaitStop(thread: number, end: number): number | undefined {
  for (let looks = 1; ; looks++) {
    const found = poll(thread);
    if (found !== undefined) return found.kind === 'ended' ? ENDED : found.signal;
    if (looks % SPINS !== 0) continue;
    if (performance.now() > end) return undefined;
    usleep(NAP_US);
  }
}

/** Waits while a thread runs that was let go on. */
export function nap(us: number): void {
  usleep(us);
}
