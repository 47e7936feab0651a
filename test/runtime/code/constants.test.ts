/** The kernel's macros as its machine code has them: right on every kernel at hand, and nothing where code says otherwise. */

import { createRequire } from 'node:module';
import test from 'ava';
import fc from 'fast-check';
import type * as Iced from 'iced-x86';
import { CONSTANTS, type ConstantName, type Witness } from '../../../runtime/code/constants.ts';
import { decode } from '../../../runtime/code/decode.ts';
import { type KernelText, type Proof, proveConstants } from '../../../runtime/code/prove.ts';
import { DomschedError } from '../../../runtime/error.ts';
import type { SymbolName } from '../../../runtime/members/symbols.ts';
import { kernelTexts } from './kernel-text.ts';

const { Decoder, Instruction, Mnemonic } = createRequire(import.meta.url)('iced-x86') as typeof Iced;

const kernels = await kernelTexts();

/** include/linux/sched.h, include/linux/sched/jobctl.h, arch/x86/include/asm/{thread_info,preempt}.h of 6.1 and 6.12. */
const EXPECTED: Readonly<Record<ConstantName, readonly bigint[]>> = {
  TIF_SIGPENDING: [1n << 2n],
  TIF_NOTIFY_RESUME: [1n << 1n],
  TIF_NEED_RESCHED: [1n << 3n],
  // SIGPENDING, NOTIFY_RESUME, NEED_RESCHED, UPROBE, PATCH_PENDING, NOTIFY_SIGNAL; PREEMPT_RT's NEED_RESCHED_LAZY, bit 19 or 4.
  EXIT_TO_USER_MODE_WORK: [0x2300en, 0xa300en, 0x2301en],
  PREEMPT_NEED_RESCHED: [1n << 31n],
  JOBCTL_TRAP_FREEZE: [1n << 23n],
  PF_EXITING: [0x4n],
  PF_KTHREAD: [0x20_0000n],
  PF_IO_WORKER: [0x10n],
  // Only since 6.4 a flag of its own.
  PF_USER_WORKER: [0x10n, 0x4000n],
  // TASK_INTERRUPTIBLE | TASK_FREEZABLE
  'trap state': [0x2001n],
  TASK_NORMAL: [0x3n],
  // TASK_WAKEKILL | __TASK_STOPPED
  TASK_STOPPED: [0x104n],
  TASK_TRACED: [0x8n],
  TASK_PARKED: [0x40n],
  TASK_WAKING: [0x200n],
  TASK_ON_RQ_QUEUED: [1n],
  // CONFIG_HZ=250
  TICK_NSEC: [4_000_000n],
};

/** Rows that one function alone proves: with another number in it, the number is another one. */
const BY_ONE_FUNCTION: readonly ConstantName[] = [
  ...(['PF_EXITING', 'PF_KTHREAD', 'trap state', 'TASK_STOPPED', 'TASK_TRACED', 'TASK_PARKED'] as const),
  ...(['TASK_WAKING', 'TASK_NORMAL', 'TIF_SIGPENDING'] as const),
];
/** Rows that functions prove together: one that says otherwise is a contradiction. */
const BY_SEVERAL: readonly ConstantName[] = ['TIF_NOTIFY_RESUME', 'TIF_NEED_RESCHED', 'JOBCTL_TRAP_FREEZE'];

function proofOf(text: KernelText, name: ConstantName): Proof {
  return proveConstants(text).proofs.find((proof) => proof.name === name)!;
}

/** A text in which some functions have other bytes. */
function changed(
  text: KernelText,
  functions: readonly SymbolName[],
  change: (bytes: Uint8Array, entry: bigint) => void,
): KernelText {
  const entries = functions.flatMap((name) => text.layout.symbol(name) ?? []);
  return {
    ...text,
    read: (address, length) => {
      const bytes = Uint8Array.from(text.read(address, length));
      if (entries.includes(address)) change(bytes, address);
      return bytes;
    },
  };
}

/** Puts another bit wherever an instruction of a function has this one, as a mask, its complement, or a bit's number. */
function moveBit(value: bigint): (bytes: Uint8Array, entry: bigint) => void {
  const index = BigInt(value.toString(2).length - 1);
  return (bytes, entry) => {
    const code = decode(bytes, entry);
    const decoder = new Decoder(64, bytes, 0);
    const raw = new Instruction();
    for (const { address } of code.values()) {
      decoder.position = Number(address - entry);
      decoder.ip = address;
      decoder.decodeOut(raw);
      const at = decoder.getConstantOffsets(raw);
      if (!at.hasImmediate || raw.mnemonic === Mnemonic.Sub || raw.mnemonic === Mnemonic.Add) continue;
      const width = 8 * at.immediateSize;
      const place = Number(address - entry) + at.immediateOffset;
      const old = word(bytes, place, at.immediateSize);
      const isNumber =
        raw.mnemonic === Mnemonic.Bts || raw.mnemonic === Mnemonic.Btr || raw.mnemonic === Mnemonic.Mov;
      for (const shift of [0n, 8n, 16n, 24n]) {
        const bits = value >> shift;
        if (bits << shift !== value || bits === 0n) continue;
        const moved = BigInt.asUintN(width, bits << 1n);
        if (old === BigInt.asUintN(width, bits)) put(bytes, place, at.immediateSize, moved);
        else if (old === BigInt.asUintN(width, ~bits)) put(bytes, place, at.immediateSize, ~moved);
        else continue;
        break;
      }
      // Of several that are tested for together it is one no more.
      const several = old & value;
      if (raw.mnemonic === Mnemonic.Test && several === value && old !== value)
        put(bytes, place, at.immediateSize, old & ~value);
      if (isNumber && old === index) put(bytes, place, at.immediateSize, index + 1n);
    }
    raw.free();
    decoder.free();
  };
}

function word(bytes: Uint8Array, at: number, size: number): bigint {
  let value = 0n;
  for (let index = size - 1; index >= 0; index--) value = (value << 8n) | BigInt(bytes[at + index]!);
  return value;
}

function put(bytes: Uint8Array, at: number, size: number, value: bigint): void {
  for (let index = 0; index < size; index++) bytes[at + index] = Number((value >> BigInt(8 * index)) & 0xffn);
}

function functionsOf(name: ConstantName): SymbolName[] {
  return CONSTANTS.find((row) => row.name === name)!.witnesses.flatMap(({ functions }) => [...functions]);
}

test('there is a kernel to look at', (t) => {
  t.true(kernels.length > 0, 'fetch the kernels with: make kernels-debian');
  t.log(kernels.map(({ release }) => release).join(', '));
});

for (const { release, layout, text } of kernels) {
  test(`${release}: every constant is read from the code, as the headers have it`, (t) => {
    for (const proof of proveConstants(text).proofs) {
      const why = proof.value === null ? proof.why : proof.name;
      t.true(
        EXPECTED[proof.name].some((value) => value === proof.value),
        `${why}: ${proof.value}`,
      );
    }
  });

  test(`${release}: code with another number gives that number`, (t) => {
    for (const name of BY_ONE_FUNCTION) {
      const { value } = proofOf(text, name);
      const moved = proofOf(changed(text, functionsOf(name), moveBit(value!)), name);
      t.is(moved.value, value! << 1n, `${name}: ${JSON.stringify(moved, string)}`);
    }
  });

  test(`${release}: functions that contradict each other prove nothing, and are named`, (t) => {
    for (const name of BY_SEVERAL) {
      const { value } = proofOf(text, name);
      const witnesses = CONSTANTS.find((row) => row.name === name)!.witnesses;
      // The first of each list that the kernel has, and whose word counts.
      const asked = new Set(
        witnesses
          .filter(({ says }) => says !== 'not')
          .map(({ functions }) => functions.find((candidate) => layout.symbol(candidate) !== undefined)!),
      );
      for (const one of asked) {
        const proof = proofOf(changed(text, [one], moveBit(value!)), name);
        t.is(proof.value, null, `${name} by ${one}()`);
        if (proof.value === null) t.regex(proof.why, new RegExp(`${name} is not proved.*\\w+\\(\\)`));
      }
    }
  });

  test(`${release}: a function that does nothing proves nothing`, (t) => {
    for (const { name, witnesses } of CONSTANTS) {
      for (const { functions, says, optional } of witnesses as readonly Witness[]) {
        if (says === 'not' || optional) continue;
        const one = functions.find((candidate) => layout.symbol(candidate) !== undefined)!;
        const proof = proofOf(
          changed(text, [one], (bytes) => bytes.fill(0xc3)),
          name,
        );
        t.is(proof.value, null, `${name} by ${one}()`);
      }
    }
  });

  test(`${release}: two numbers for one thing are none`, (t) => {
    const offset = layout.field('task_struct', '__state').offset;
    t.true(offset < 0x80, 'as the bytes below have it');
    // movl $0x40,offset(%rbp); movl $0x80,offset(%rbp); ret
    const store = (state: number) => [0xc7, 0x45, offset, state, 0, 0, 0];
    const code = [...store(0x40), ...store(0x80), 0xc3];
    const proof = proofOf(
      changed(text, ['__kthread_parkme'], (bytes) => bytes.set(code)),
      'TASK_PARKED',
    );
    t.is(proof.value, null);
    if (proof.value === null) t.regex(proof.why, /__kthread_parkme\(\) stores it .* 0x40, 0x80/);
    const one = changed(text, ['__kthread_parkme'], (bytes) => bytes.set([...store(0x80), 0xc3]));
    t.is(proofOf(one, 'TASK_PARKED').value, 0x80n);
  });

  test(`${release}: the request in the preemption count is the bit that a CPU clears for itself`, (t) => {
    const functions: readonly SymbolName[] = ['__resched_curr', 'resched_curr'];
    // andl $0x7fffffff becomes andl $0xbfffffff.
    const other = changed(text, functions, (bytes) => {
      const mask = Buffer.of(0xff, 0xff, 0xff, 0x7f);
      const all = Buffer.from(bytes.buffer);
      // In a test and in what is meant.
      for (let at = all.indexOf(mask); at >= 0; at = all.indexOf(mask)) bytes[at + 3] = 0xbf;
    });
    t.is(proofOf(other, 'PREEMPT_NEED_RESCHED').value, 1n << 30n);
  });

  test(`${release}: a preemption count that is a long has its request in a bit that no int has`, (t) => {
    const hot = layout.has('pcpu_hot', 'preempt_count')
      ? layout.field('pcpu_hot', 'preempt_count').offset
      : 0;
    const at =
      Number(
        layout.requireSymbol(hot || layout.symbol('pcpu_hot') !== undefined ? 'pcpu_hot' : '__preempt_count'),
      ) + hot;
    // movabs $mask,%rax; and %rax,%gs:at (or %eax); ret. As __resched_curr() of 7.3.
    const clears = (mask: bigint, wide: boolean) => {
      const code = Buffer.alloc(20, 0xc3);
      code.set([0x48, 0xb8]);
      code.writeBigUInt64LE(mask, 2);
      code.set(wide ? [0x65, 0x48, 0x21, 0x04, 0x25] : [0x65, 0x21, 0x04, 0x25], 10);
      code.writeInt32LE(at, wide ? 15 : 14);
      return changed(text, ['__resched_curr', 'resched_curr'], (bytes) => bytes.set(code));
    };
    const found = (mask: bigint, wide: boolean) => proofOf(clears(mask, wide), 'PREEMPT_NEED_RESCHED').value;
    t.is(found(~(1n << 63n) & 0xffff_ffff_ffff_ffffn, true), 1n << 63n);
    t.is(found(0x7fff_ffffn, false), 1n << 31n);
    t.is(found(~(1n << 31n) & 0xffff_ffff_ffff_ffffn, true), null, 'the bit of an int, in a long');
  });

  test(`${release}: TIF_NOTIFY_RESUME is never what the OOM killer or a signal sets`, (t) => {
    const { value } = proofOf(text, 'TIF_NOTIFY_RESUME');
    // lock orb $value,(%rdi); ret
    const sets = Uint8Array.of(0xf0, 0x80, 0x0f, Number(value), 0xc3);
    for (const other of ['mark_oom_victim', 'recalc_sigpending'] as const) {
      const proof = proofOf(
        changed(text, [other], (bytes) => bytes.set(sets)),
        'TIF_NOTIFY_RESUME',
      );
      t.is(proof.value, null, other);
    }
  });

  test(`${release}: a kernel that came up on one CPU, without its lock prefixes, has the same constants`, (t) => {
    const one = {
      ...text,
      read: (address: bigint, length: number) => {
        const bytes = Uint8Array.from(text.read(address, length));
        for (const { address: at, locked } of decode(bytes, address).values())
          if (locked && bytes[Number(at - address)] === 0xf0) bytes[Number(at - address)] = 0x3e;
        return bytes;
      },
    };
    const [two, single] = [proveConstants(text), proveConstants(one)];
    for (const { name } of CONSTANTS) t.is(single.get(name), two.get(name), name);
  });

  test(`${release}: a kernel that was moved has the same constants`, (t) => {
    const slide = 0x1234_0000n;
    // The loader corrects what is relative to the instruction and does not move: variables of a CPU's own area.
    const moved = {
      layout,
      slide,
      read: (address: bigint, length: number) => text.read(address - slide, length),
    };
    const names = CONSTANTS.map(({ name }) => name).filter((name) => name !== 'PREEMPT_NEED_RESCHED');
    const [here, there] = [proveConstants(text), proveConstants(moved)];
    for (const name of names) t.is(there.get(name), here.get(name), name);
  });

  test(`${release}: what is not proved is refused by name`, (t) => {
    const none = proveConstants({ ...text, read: () => new Uint8Array(0) });
    for (const { name } of CONSTANTS) {
      const error = t.throws(() => none.get(name), { instanceOf: DomschedError });
      t.is(error.code, 'refused');
      t.true(error.message.includes(name), error.message);
    }
  });
}

test('any bytes are decoded in bounds, and prove nothing', (t) => {
  const [first] = kernels;
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 4_096, size: 'max' }), (bytes) => {
      const code = decode(bytes, 0xffff_ffff_8100_0000n);
      t.true(code.size <= bytes.length);
      for (const { address, next } of code.values())
        t.true(address >= 0xffff_ffff_8100_0000n && next <= 0xffff_ffff_8100_0000n + BigInt(bytes.length));
      const { proofs } = proveConstants({ ...first!.text, read: () => bytes });
      t.is(proofs.length, CONSTANTS.length);
      // The same bytes for every function: some may say a number by chance, all of them never agree.
      t.true(proofs.some(({ value }) => value === null));
    }),
    { numRuns: 60 },
  );
});

function string(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
}
