/** Code as compilers make it that build no kernel of Debian's: each function here is written by hand, after what they write. */
import path from 'node:path';
import test from 'ava';
import type { KernelText } from '../../../runtime/code/inquiry.ts';
import { type ConstantName, proveConstants } from '../../../runtime/code/prove.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { AnyLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import type { SymbolName } from '../../../runtime/members/symbols.ts';

const kernel = (await knownKernels()).find(({ release }) => /^6\.12\..*-cloud-amd64$/.test(release))!;
const { layout: known } = (await import(path.join(kernel.store, kernel.folder, 'index.ts'))) as {
  layout: AnyLayout;
};

/** Where functions of no name and tables are: within reach of a call. */
const HELPER = 0xffff_ffff_8100_0000n;
const TABLE = 0xffff_ffff_8100_1000n;
const RET = [0xc3];

/** The kernel's layout with these symbols at other places, or without them. */
function layoutWith(symbols: Partial<Record<SymbolName, bigint | null>>, from = known): LayoutView {
  const all = { ...from.$symbols, ...symbols } as Record<string, bigint | null>;
  const left = Object.entries(all).filter(([, address]) => address !== null);
  return new LayoutView({ ...from, $symbols: Object.fromEntries(left) } as unknown as AnyLayout);
}

/** A kernel whose memory has these bytes at these addresses, and nothing else. */
function textOf(layout: LayoutView, memory: ReadonlyMap<bigint, readonly number[]>): KernelText {
  const bytes = (address: bigint, length: number) =>
    Uint8Array.from((memory.get(address) ?? []).slice(0, length));
  return {
    layout,
    slide: 0n,
    read: (address, length) => (address === TABLE ? new Uint8Array(0) : bytes(address, length)),
    readData: (address, length) => (address === TABLE ? bytes(address, length) : new Uint8Array(0)),
  };
}

function provedValue(text: KernelText, name: ConstantName): bigint | null {
  return proveConstants(text).proofs.find((proof) => proof.name === name)!.value;
}

function little(value: bigint, size: number): number[] {
  return Array.from({ length: size }, (_, index) => Number((value >> BigInt(8 * index)) & 0xffn));
}

/** `call target`, as the first instruction of a function. */
const call = (from: bigint, to: bigint) => [0xe8, ...little(to - from - 5n, 4)];

const layout = layoutWith({ recalc_sigpending_tsk: null });
const at = (name: SymbolName) => layout.requireSymbol(name);
const flags = BigInt(layout.field('task_struct', 'flags').offset);

/** `lock orb $bits,(%rdi)` and `lock andb $~bits,(%rcx)`: thread_info.flags come first. */
const sets = (bits: number) => [0xf0, 0x80, 0x0f, bits];
const clears = (bits: number) => [0xf0, 0x80, 0x21, ~bits & 0xff];

test('to save space, a function that sets a bit is one of its own: it is read where the caller shows nothing', (t) => {
  t.is(layout.field('task_struct', 'thread_info').offset, 0);
  const recalc = at('recalc_sigpending');
  const text = (helper: readonly number[], own: readonly number[] = []) =>
    textOf(
      layout,
      new Map([
        [recalc, [...call(recalc, HELPER), ...own, ...clears(4), ...RET]],
        [HELPER, [...helper, ...RET]],
      ]),
    );
  t.is(provedValue(text(sets(4)), 'TIF_SIGPENDING'), 4n);
  t.is(provedValue(text(sets(8)), 'TIF_SIGPENDING'), null, 'another bit than it clears');
  t.is(provedValue(text([...sets(4), ...sets(8)]), 'TIF_SIGPENDING'), null, 'two bits');
  t.is(provedValue(text([]), 'TIF_SIGPENDING'), null);
  t.is(provedValue(text(sets(8), sets(4)), 'TIF_SIGPENDING'), 4n, 'its own word comes first');
  // Something that large is no helper: 70 times `lea 0(%rax),%rax`.
  const large = new Array<number[]>(70).fill([0x48, 0x8d, 0x40, 0x00]).flat();
  t.is(provedValue(text([...large, ...sets(4)]), 'TIF_SIGPENDING'), null);
});

test('to save space, the flag of kernel threads is tested by to_kthread(), and that of io workers by sched_submit_work()', (t) => {
  const [stop, schedule] = [at('kthread_should_stop'), at('schedule')];
  const sleeping = at('io_wq_worker_sleeping');
  // testb $0x20,flags+2(%rdi); ret
  const toKthread = [0xf6, 0x47, Number(flags) + 2, 0x20, ...RET];
  // mov flags(%rdi),%eax; test $0x10,%al; je over; call io_wq_worker_sleeping; over: ret
  const submit = [0x8b, 0x47, Number(flags), 0xa8, 0x10, 0x74, 0x05];
  const text = textOf(
    layout,
    new Map([
      [stop, [...call(stop, HELPER), ...RET]],
      [HELPER, toKthread],
      [schedule, [...call(schedule, HELPER + 64n), ...RET]],
      [HELPER + 64n, [...submit, ...call(HELPER + 64n + BigInt(submit.length), sleeping), ...RET]],
    ]),
  );
  t.is(provedValue(text, 'PF_KTHREAD'), 0x20_0000n);
  t.is(provedValue(text, 'PF_IO_WORKER'), 0x10n);
});

test('to save space, the series of a load average is in a function of its own', (t) => {
  const update = at('__update_load_avg_se');
  // mov $0xba7e,%edi; ret
  const accumulate = [0xbf, ...little(0xba7en, 4), ...RET];
  const text = (divider: bigint) =>
    textOf(
      layout,
      new Map([
        // lea divider(%r14),%esi; ret
        [update, [...call(update, HELPER), 0x41, 0x8d, 0xb6, ...little(divider, 4), ...RET]],
        [HELPER, accumulate],
      ]),
    );
  t.is(provedValue(text(0xb67en), 'PELT_MIN_DIVIDER'), 0xb67en);
  t.is(provedValue(text(0xb67fn), 'PELT_MIN_DIVIDER'), null);
});

test('a kernel without io_uring has no io workers; one whose linker has inlined their function may have some', (t) => {
  const { task_struct } = known as unknown as Record<string, Record<string, unknown>>;
  const { io_uring, ...others } = task_struct!;
  t.truthy(io_uring);
  const bare = { ...known, task_struct: others } as unknown as AnyLayout;
  const value = (of: LayoutView) => provedValue(textOf(of, new Map([[at('schedule'), RET]])), 'PF_IO_WORKER');
  t.is(value(layoutWith({ io_wq_worker_sleeping: null }, bare)), 0n);
  t.is(value(layoutWith({ io_wq_worker_sleeping: null })), null);
  t.is(value(layoutWith({}, bare)), null);
  t.is(value(layout), null);
});

test('clang has __kthread_parkme() in kthread_parkme()', (t) => {
  const state = layout.field('task_struct', '__state').offset;
  // movl $0x40,state(%r15); movl $0,state(%r15); ret
  const store = (value: number) => [0x41, 0xc7, 0x47, state, value, 0, 0, 0];
  const code = [...store(0x40), ...store(0), ...RET];
  const inlined = layoutWith({ __kthread_parkme: null, kthread_parkme: HELPER });
  t.is(provedValue(textOf(inlined, new Map([[HELPER, code]])), 'TASK_PARKED'), 0x40n);
  const neither = layoutWith({ __kthread_parkme: null, kthread_parkme: null });
  t.is(provedValue(textOf(neither, new Map([[HELPER, code]])), 'TASK_PARKED'), null);
});

test('code that is watched calls a function before each load (KASAN, KCOV): an argument is where calls keep it', (t) => {
  const timeout = at('process_timeout');
  const place = layout.requireStruct('timer_list').size;
  const MOV_RBX = [0x48, 0x8b, 0x7b, place];
  // push %rbx; begin; call HELPER; mov place(%rbx),%rdi; pop %rbx; jmp wake_up_process
  const value = (begin: readonly number[], watched: readonly number[] = [], load = MOV_RBX) => {
    const code = [0x53, ...begin];
    code.push(...call(timeout + BigInt(code.length), HELPER), ...watched, ...load, 0x5b);
    const [, ...distance] = call(timeout + BigInt(code.length), at('wake_up_process'));
    const text = textOf(layout, new Map([[timeout, [...code, 0xe9, ...distance]]]));
    return provedValue(text, 'process_timer.task');
  };
  const copy = [0x48, 0x89, 0xfb];
  t.is(value(copy), BigInt(place));
  // lea place(%rbx),%rdi, for whom it watches.
  t.is(value(copy, [0x48, 0x8d, 0x7b, place]), BigInt(place));
  t.is(value([]), null, 'what nobody has written');
  t.is(value([0x48, 0x89, 0xf3]), null, 'another argument');
  // mov (%rdi),%rdi, or a call, before it.
  t.is(value([0x48, 0x8b, 0x3f, ...copy]), null, 'no argument any more');
  t.is(value([...call(timeout + 1n, HELPER), ...copy]), null, 'what a call has left');
  t.is(value(copy, [0x48, 0x8b, 0x1b]), null, 'mov (%rbx),%rbx: written again');
  // mov %rdi,%rax; mov place(%rax),%rdi
  t.is(value([0x48, 0x89, 0xf8], [], [0x48, 0x8b, 0x78, place]), null, 'a register that calls do not keep');
  const direct = (...loads: number[]) => {
    const [, ...distance] = call(timeout + BigInt(loads.length), at('wake_up_process'));
    const text = textOf(layout, new Map([[timeout, [...loads, 0xe9, ...distance]]]));
    return provedValue(text, 'process_timer.task');
  };
  const load = [0x48, 0x8b, 0x7f, place];
  t.is(direct(...load), BigInt(place));
  t.is(direct(...load, ...load), null, 'of another structure');
});

test('where calls are not guarded a switch has a table of jumps: its cases are read, and nothing else', (t) => {
  const name: SymbolName = '__do_sys_prctl';
  const entry = HELPER;
  const place = little(flags, 4);
  const both = 0x18_0000n;
  // jmp *TABLE(,%rdi,8); then the cases: orl and andl of flags(%rax), and a question for both bits.
  const jump = [0xff, 0x24, 0xfd, ...little(TABLE, 4)];
  const set = [0x81, 0x88, ...place, ...little(both, 4), ...RET];
  const clear = [0x81, 0xa0, ...place, ...little(~both, 4), ...RET];
  const asks = (bits: bigint) => [
    0x8b,
    0x80,
    ...place,
    0x25,
    ...little(bits, 4),
    0x3d,
    ...little(bits, 4),
    ...RET,
  ];
  const ask = asks(both);
  const other = [0x81, 0x88, ...place, ...little(0x3000n, 4), ...asks(0x3000n)];
  const parts = [jump, set, clear, ask, other];
  const places = parts.map((_, index) => entry + BigInt(parts.slice(0, index).flat().length));
  const switching = layoutWith({ [name]: entry });
  const prove = (table: readonly bigint[]) =>
    provedValue(
      textOf(
        switching,
        new Map([
          [entry, parts.flat()],
          [TABLE, table.flatMap((address) => little(address, 8))],
        ]),
      ),
      'PR_IO_FLUSHER',
    );
  const [, atSet, atClear, atAsk, atOther] = places as [bigint, bigint, bigint, bigint, bigint];
  t.is(prove([atSet, atClear, atAsk]), both);
  t.is(prove([atSet, atClear, atAsk, 0n, atOther]), both, 'behind the end of the table');
  t.is(prove([atSet, atClear, atAsk, atOther]), null, 'two numbers');
  t.is(prove([atSet, atAsk]), null, 'nothing clears them');
  t.is(prove([]), null);
});
