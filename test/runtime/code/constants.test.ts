/** The kernel's macros as its machine code has them: right on every kernel at hand, and nothing where code says otherwise. */

import { createRequire } from 'node:module';
import path from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import type * as Iced from 'iced-x86';
import { CONSTANTS } from '../../../runtime/code/constants.ts';
import { decode } from '../../../runtime/code/decode.ts';
import type { KernelText } from '../../../runtime/code/inquiry.ts';
import { O1_CONSTANTS } from '../../../runtime/code/o1-constants.ts';
import { type ConstantName, type Proof, proveConstants } from '../../../runtime/code/prove.ts';
import type { ConstantRow } from '../../../runtime/code/witness.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { AnyLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import type { SymbolName } from '../../../runtime/members/symbols.ts';
import { peltRefusal } from '../../../runtime/technique/fair/pelt.ts';
import { kernelTexts, o1Texts } from './kernel-text.ts';

const { Decoder, Instruction, Mnemonic } = createRequire(import.meta.url)('iced-x86') as typeof Iced;

const kernels = await kernelTexts();
const o1Kernels = await o1Texts();

/** include/linux/sched.h, include/linux/sched/jobctl.h, arch/x86/include/asm/{thread_info,preempt}.h of 6.1 and 6.12. */
const EXPECTED: Readonly<Record<(typeof CONSTANTS)[number]['name'], readonly bigint[]>> = {
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
  // Behind a list node, `expires`, `function` and `flags` (include/linux/timer.h).
  'process_timer.task': [40n],
  // kernel/sched/sched-pelt.h, LOAD_AVG_MAX, less a period.
  PELT_MIN_DIVIDER: [47_742n - 1_024n],
  // PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE
  PR_IO_FLUSHER: [0x18_0000n],
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

/** A kernel's layout but for a symbol that it has. */
async function withoutSymbol(release: string, name: SymbolName): Promise<LayoutView> {
  const { store, folder } = (await knownKernels()).find((kernel) => kernel.release === release)!;
  const { layout: module } = (await import(path.join(store, folder, 'index.ts'))) as { layout: AnyLayout };
  const left = Object.entries(module.$symbols).filter(([symbol]) => symbol !== name);
  return new LayoutView({ ...module, $symbols: Object.fromEntries(left) } as unknown as AnyLayout);
}

function rowOf(name: ConstantName): ConstantRow {
  return CONSTANTS.find((row) => row.name === name)!;
}

function functionsOf(name: ConstantName): SymbolName[] {
  return rowOf(name).witnesses.flatMap(({ functions }) => [...functions]);
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
        EXPECTED[proof.name as keyof typeof EXPECTED].some((value) => value === proof.value),
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
      const { witnesses } = rowOf(name);
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
    for (const { name, witnesses } of CONSTANTS as readonly (ConstantRow & { name: ConstantName })[]) {
      for (const { functions, says, optional } of witnesses) {
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

  test(`${release}: without control groups, the state in the trap is what it stores before it sleeps`, async (t) => {
    const entered = layout.symbol('cgroup_enter_frozen')!;
    t.truthy(entered);
    const trap: readonly SymbolName[] = ['do_freezer_trap', 'get_signal'];
    let calls = 0;
    const quiet = changed(text, trap, (bytes, entry) => {
      for (const at of decode(bytes, entry).values()) {
        if (at.name !== 'call' || at.target !== entered + text.slide) continue;
        calls += 1;
        // nopl 0(%rax,%rax,1) in place of the call.
        bytes.set([0x0f, 0x1f, 0x44, 0, 0], Number(at.address - entry));
      }
    });
    const bare = await withoutSymbol(release, 'cgroup_enter_frozen');
    const proof = proofOf({ ...quiet, layout: bare }, 'trap state');
    t.true(calls > 0);
    t.is(proof.value, proofOf(text, 'trap state').value, JSON.stringify(proof, string));
    t.is(proofOf(quiet, 'trap state').value, null, 'with control groups it is not taken from there');
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
      readData: (address: bigint, length: number) => text.readData(address - slide, length),
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

for (const { release, text } of kernels) {
  test(`${release}: the task that a timeout wakes is where its code reads it`, (t) => {
    // mov 0x28(%rdi),%rdi
    const other = changed(
      text,
      ['process_timeout'],
      replaced([0x48, 0x8b, 0x7f, 40], [0x48, 0x8b, 0x7f, 48]),
    );
    t.is(proofOf(other, 'process_timer.task').value, 48n);
    const none = changed(
      text,
      ['process_timeout'],
      replaced([0x48, 0x8b, 0x7f, 40], [0x90, 0x90, 0x90, 0x90]),
    );
    t.is(proofOf(none, 'process_timer.task').value, null);
  });

  test(`${release}: a series of averages that is a unit longer is read as that, and half of that as nothing`, (t) => {
    const least = replaced([0x7e, 0xb6, 0, 0], [0x7f, 0xb6, 0, 0]);
    const whole = replaced([0x7e, 0xba, 0, 0], [0x7f, 0xba, 0, 0]);
    const found = (change: (bytes: Uint8Array) => void) =>
      proofOf(changed(text, ['__update_load_avg_se'], change), 'PELT_MIN_DIVIDER').value;
    t.is(
      found((bytes) => {
        least(bytes);
        whole(bytes);
      }),
      46_719n,
    );
    t.is(found(least), null);
    t.is(found(whole), null);
  });
}

for (const { release, layout, text } of kernels) {
  test(`${release}: averages fade by the table that we compute`, (t) => {
    const bytes = Buffer.from(text.read(layout.requireSymbol('runnable_avg_yN_inv'), 128));
    const table = Array.from({ length: 32 }, (_, n) => BigInt(bytes.readUInt32LE(4 * n)));
    t.is(peltRefusal(46_718n, table), null);
    t.regex(peltRefusal(46_718n, table.with(31, table[31]! + 1n))!, /fade at another rate/);
  });
}

/** Writes other bytes wherever some are. */
function replaced(from: readonly number[], to: readonly number[]): (bytes: Uint8Array) => void {
  return (bytes) => {
    const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    const wanted = Buffer.from(from);
    for (let at = all.indexOf(wanted); at >= 0; at = all.indexOf(wanted, at + 1)) bytes.set(to, at);
  };
}

for (const { release, layout, text } of o1Kernels) {
  /** `thread_info.flags` in an instruction with a short displacement from %rax. */
  const flags = layout.field('thread_info', 'flags').offset;

  test(`${release}: the request to reschedule is what schedule() clears and the tick sets`, (t) => {
    // include/asm-x86_64/thread_info.h, 2.6.16
    t.is(proofOf(text, 'TIF_NEED_RESCHED').value, 1n << 3n);
    const both = changed(text, ['schedule', 'scheduler_tick'], moveBit(1n << 3n));
    t.is(proofOf(both, 'TIF_NEED_RESCHED').value, 1n << 4n);
    for (const one of ['schedule', 'scheduler_tick'] as const) {
      const proof = proofOf(changed(text, [one], moveBit(1n << 3n)), 'TIF_NEED_RESCHED');
      t.is(proof.value, null, one);
      if (proof.value === null) t.regex(proof.why, /TIF_NEED_RESCHED is not proved.*\w+\(\)/);
    }
  });

  test(`${release}: clear_bit() as Linux has it is read too, with its lock prefix and without`, (t) => {
    // lock btrl $5,flags(%rax); ret. And a nop for the prefix, as on one CPU.
    for (const prefix of [0xf0, 0x90]) {
      const code = [prefix, 0x0f, 0xba, 0x70, flags, 5, 0xc3];
      const other = changed(text, ['schedule'], (bytes) => bytes.set(code));
      const silent = changed(other, ['scheduler_tick'], (bytes) => bytes.fill(0xc3));
      t.is(proofOf(silent, 'TIF_NEED_RESCHED').value, 1n << 5n, String(prefix));
    }
  });

  test(`${release}: the state of a hold is one that nobody wakes and that does not mean death`, (t) => {
    t.is(proofOf(text, 'state of a hold').value, 64n);
    const refused = (function_: SymbolName, code: readonly number[]) => {
      const other = changed(text, [function_], (bytes) => bytes.set(code));
      const proof = proofOf(other, 'state of a hold');
      t.is(proof.value, null, function_);
      if (proof.value === null) t.regex(proof.why, new RegExp(`${function_}\\(\\).*0x4[01]`));
    };
    // mov $0x41,%esi; jmp try_to_wake_up
    const entry = layout.requireSymbol('wake_up');
    const jump = Buffer.alloc(4);
    jump.writeInt32LE(Number(layout.requireSymbol('try_to_wake_up') - entry - 10n));
    refused('wake_up', [0xbe, 0x41, 0, 0, 0, 0xe9, ...jump]);
    // cmp $0x40,%eax; ret: as where TASK_DEAD is that.
    refused('finish_task_switch', [0x83, 0xf8, 0x40, 0xc3]);
    // testb $0x40,(%rdi); ret
    t.is(layout.field('task_struct', 'state').offset, 0);
    refused('schedule', [0xf6, 0x07, 0x40, 0xc3]);
    // Code that wakes nobody proves nothing.
    const silent = changed(text, ['wake_up'], (bytes) => bytes.fill(0xc3));
    t.is(proofOf(silent, 'state of a hold').value, null);
  });

  test(`${release}: PF_EXITING is one that do_exit() sets, and not the one that the end of a switch looks for`, (t) => {
    t.is(proofOf(text, 'PF_EXITING').value, 4n);
    const flags = layout.field('task_struct', 'flags').offset;
    const why = (function_: SymbolName, code: readonly number[]) => {
      const proof = proofOf(
        changed(text, [function_], (bytes) => bytes.set(code)),
        'PF_EXITING',
      );
      return proof.value === null ? proof.why : 'it is proved';
    };
    // orq $8,flags(%rbp); ret
    t.regex(why('do_exit', [0x48, 0x83, 0x4d, flags, 8, 0xc3]), /PF_EXITING .*do_exit\(\) sets .*0x8/);
    t.regex(why('do_exit', [0xc3]), /PF_EXITING .*do_exit\(\) .*nothing/);
    // testb $4,flags(%rdi); ret
    t.regex(why('finish_task_switch', [0xf6, 0x47, flags, 4, 0xc3]), /finish_task_switch\(\) tests .*0x4/);
  });

  test(`${release}: without its code nothing is proved`, (t) => {
    const none = proveConstants({ ...text, read: () => new Uint8Array(0) });
    for (const { name } of O1_CONSTANTS)
      t.throws(() => none.get(name), { instanceOf: DomschedError, code: 'refused' });
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
