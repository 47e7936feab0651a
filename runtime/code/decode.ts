/**
 * Decodes a function's machine code from its entry along every branch, as the CPU would go. So code that follows the
 * function in memory is not taken for part of it, and padding is never read.
 */
import { createRequire } from 'node:module';
import type * as Iced from 'iced-x86';

export type Operand =
  /** The whole register's name, and which of its bytes are meant: of `rax`, `al` is the first, `ah` the second. */
  | { readonly kind: 'register'; readonly register: string; readonly from: number; readonly size: number }
  | { readonly kind: 'immediate'; readonly value: bigint }
  | {
      readonly kind: 'memory';
      /**
       * `member`: a displacement from one register other than the stack pointer, as for members of structures.
       * `percpu`: an offset in a CPU's own area.
       */
      readonly place: 'member' | 'percpu' | 'other';
      /** Register of a `member`. */
      readonly base: string | null;
      readonly displacement: bigint;
      /** Bytes. */
      readonly size: number;
    };

export interface Instruction {
  readonly address: bigint;
  /** As assemblers spell it: `or`, `bts`, `cmpxchg`. */
  readonly name: string;
  /**
   * Whether it has a lock prefix, or the prefix that the kernel writes over it if it started on one CPU (`%ds:`;
   * arch/x86/kernel/alternative.c, `alternatives_smp_unlock()`).
   */
  readonly locked: boolean;
  /** The destination comes first. */
  readonly operands: readonly Operand[];
  /** Target of a direct call, jump or branch. */
  readonly target: bigint | null;
  /** Where the CPU continues; `end` also for a call that does not return. */
  readonly flow: Flow;
  /** Address of the next instruction in memory. */
  readonly next: bigint;
}

type Flow = 'next' | 'branch' | 'jump' | 'call' | 'end';

/** Instructions of one function that can be reached from its entry, by address. */
export type Code = ReadonlyMap<bigint, Instruction>;

/** Bounds decoding: no function that we look at has as many instructions. */
const MAX_INSTRUCTIONS = 4_096;
/** As many words of a jump table are read. */
const MAX_CASES = 128;
/** Functions begin at multiples of this (gcc's `-falign-functions`, CONFIG_FUNCTION_ALIGNMENT since 6.2). */
const ALIGNMENT = 16n;
const ENDBR64 = [0xf3, 0x0f, 0x1e, 0xfa];
/** Dynamic ftrace writes this over a call of `__fentry__` that is not traced. */
const NOP5 = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const CALL = 0xe8;
const NOP = 0x90;
const INT3 = 0xcc;

let loaded: typeof Iced | undefined;

/** The decoder, loaded on first use because loading takes longer than all work done with it. */
function iced(): typeof Iced {
  loaded ??= createRequire(import.meta.url)('iced-x86') as typeof Iced;
  return loaded;
}

/**
 * Decodes a function.
 * @param bytes the function's memory from its entry, up to its greatest possible length
 * @param entry its address
 * @param endless addresses of functions that do not return
 * @param words reads so many words of the kernel's memory, or fewer: the jump tables that compilers make of a `switch`,
 *   unless calls are guarded (arch/x86/Makefile, `-fno-jump-tables`)
 */
export function decode(
  bytes: Uint8Array,
  entry: bigint,
  endless: ReadonlySet<bigint> = new Set(),
  words: (address: bigint, count: number) => readonly bigint[] = () => [],
): Code {
  const { Decoder, DecoderOptions, Instruction: IcedInstruction } = iced();
  const decoder = new Decoder(64, bytes, DecoderOptions.None);
  const raw = new IcedInstruction();
  const code = new Map<bigint, Instruction>();
  const open = [entry];
  try {
    while (open.length > 0) {
      let address = open.pop()!;
      while (!code.has(address) && code.size < MAX_INSTRUCTIONS) {
        const offset = address - entry;
        if (offset < 0n || offset >= BigInt(bytes.length)) break;
        decoder.position = Number(offset);
        decoder.ip = address;
        decoder.decodeOut(raw);
        if (raw.isInvalid) break;
        const instruction = plain(raw, address);
        if (instruction.flow === 'call' && isLast(instruction, bytes, entry, endless))
          instruction.flow = 'end';
        code.set(address, instruction);
        if (instruction.flow === 'branch') open.push(instruction.target!);
        if (instruction.flow === 'jump' && instruction.target !== null) open.push(instruction.target);
        const table = tableOf(raw);
        if (table !== null) open.push(...within(words(table, MAX_CASES), entry, bytes.length));
        if (instruction.flow === 'jump' || instruction.flow === 'end') break;
        address = instruction.next;
      }
    }
  } finally {
    raw.free();
    decoder.free();
  }
  return new Map([...code].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function plain(raw: Iced.Instruction, address: bigint): Instruction & { flow: Flow } {
  const { FlowControl, Mnemonic, Register } = iced();
  const target = isNear(raw) ? raw.nearBranchTarget : null;
  const flows: Partial<Record<number, Flow>> = {
    [FlowControl.Next]: 'next',
    [FlowControl.ConditionalBranch]: 'branch',
    [FlowControl.UnconditionalBranch]: 'jump',
    [FlowControl.Call]: 'call',
    [FlowControl.IndirectCall]: 'call',
  };
  const operands: Operand[] = [];
  for (let index = 0; index < raw.opCount; index++) {
    const operand = operandOf(raw, index);
    if (operand !== null) operands.push(operand);
  }
  return {
    address,
    name: Mnemonic[raw.mnemonic]!.toLowerCase(),
    locked: raw.hasLockPrefix || raw.segmentPrefix === Register.DS,
    operands,
    target: target === null ? null : BigInt.asUintN(64, target),
    flow: flows[raw.flowControl] ?? 'end',
    next: address + BigInt(raw.length),
  };
}

/** Address of the table that an instruction takes the place from to jump to: `jmp *table(,%reg,8)`. */
function tableOf(raw: Iced.Instruction): bigint | null {
  const { FlowControl, OpKind, Register } = iced();
  if (raw.flowControl !== FlowControl.IndirectBranch || raw.opKind(0) !== OpKind.Memory) return null;
  const { memoryBase, memoryIndex, memoryIndexScale, memoryDisplacement } = raw;
  const isTable = memoryBase === Register.None && memoryIndex !== Register.None && memoryIndexScale === 8;
  return isTable ? BigInt.asUintN(64, memoryDisplacement) : null;
}

/** The first of these addresses that are of the function: a table has nothing that says where it ends. */
function within(addresses: readonly bigint[], entry: bigint, length: number): bigint[] {
  const isOurs = (address: bigint) => address >= entry && address - entry < BigInt(length);
  const end = addresses.findIndex((address) => !isOurs(address));
  return addresses.slice(0, end < 0 ? addresses.length : end);
}

function isNear(raw: Iced.Instruction): boolean {
  const { OpKind } = iced();
  return raw.opCount === 1 && raw.opKind(0) === OpKind.NearBranch64;
}

function operandOf(raw: Iced.Instruction, index: number): Operand | null {
  const { MemorySizeExt, OpKind, Register, RegisterExt } = iced();
  const kind = raw.opKind(index);
  if (kind === OpKind.NearBranch64) return null;
  if (kind === OpKind.Register) {
    const register = raw.opRegister(index);
    const whole = Register[RegisterExt.fullRegister(register)]!.toLowerCase();
    const { AH, BH, CH, DH } = Register;
    const from = [AH, BH, CH, DH].includes(register) ? 1 : 0;
    return { kind: 'register', register: whole, from, size: RegisterExt.size(register) };
  }
  if (kind === OpKind.Memory) {
    const { memoryBase, memoryIndex, segmentPrefix } = raw;
    const none = Register.None;
    const isData = segmentPrefix === none || segmentPrefix === Register.DS;
    const isPlain = memoryBase !== none && memoryIndex === none && isData;
    const isMember = isPlain && memoryBase !== Register.RSP && memoryBase !== Register.RIP;
    const isPercpu = segmentPrefix === Register.GS && memoryIndex === none;
    const hasRegister = memoryBase !== none && memoryBase !== Register.RIP;
    return {
      kind: 'memory',
      place: isMember ? 'member' : isPercpu && !hasRegister ? 'percpu' : 'other',
      base: isMember ? Register[RegisterExt.fullRegister(memoryBase)]!.toLowerCase() : null,
      displacement: BigInt.asIntN(64, raw.memoryDisplacement),
      size: MemorySizeExt.size(raw.memorySize),
    };
  }
  const isImmediate = kind >= OpKind.Immediate8 && kind <= OpKind.Immediate32to64;
  return isImmediate ? { kind: 'immediate', value: BigInt.asUintN(64, raw.immediate(index)) } : null;
}

/**
 * Whether a call does not return. If the target is not known, padding and then another function behind the call show
 * it: kernels have no padding within functions (arch/x86/Makefile, `-falign-loops=1`).
 */
function isLast(call: Instruction, bytes: Uint8Array, entry: bigint, endless: ReadonlySet<bigint>): boolean {
  if (call.target !== null && endless.has(call.target)) return true;
  const at = Number(call.next - entry);
  const gap = Number((ALIGNMENT - (call.next % ALIGNMENT)) % ALIGNMENT);
  const next = at + gap;
  const begins = (pattern: readonly number[], from: number) =>
    pattern.every((byte, i) => bytes[from + i] === byte);
  if (next >= bytes.length) return false;
  if (bytes[at] === INT3) return true;
  // Code that follows directly does not exclude that another function begins at the next boundary.
  if (gap > 0 && !isPadding(bytes.subarray(at, next))) return false;
  if (begins(ENDBR64, next) || begins(new Array(16).fill(NOP), next)) return true;
  return gap > 0 && (bytes[next] === CALL || begins(NOP5, next));
}

/** Accepts one-byte nops and the long ones of compilers: `(66)* 0f 1f`, `66 90`. */
function isPadding(bytes: Uint8Array): boolean {
  const { Decoder, DecoderOptions, Mnemonic } = iced();
  const decoder = new Decoder(64, bytes, DecoderOptions.None);
  try {
    while (decoder.canDecode) {
      const raw = decoder.decode();
      const fine = !raw.isInvalid && (raw.mnemonic === Mnemonic.Nop || raw.mnemonic === Mnemonic.Xchg);
      raw.free();
      if (!fine) return false;
    }
    return true;
  } finally {
    decoder.free();
  }
}
