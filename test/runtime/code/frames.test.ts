/** Frames by their code are the frames that the kernel's own unwinder has of them, on every kernel at hand. */
import { readFileSync } from 'node:fs';
import test from 'ava';
import { cachedKernels } from '../../../kernels/cache.ts';
import { decode } from '../../../runtime/code/decode.ts';
import { depthAtSave, returnsFrom } from '../../../runtime/code/frames.ts';
import { proveConstants } from '../../../runtime/code/prove.ts';
import { kernelTexts } from './kernel-text.ts';

const kernels = await kernelTexts();
/** arch/x86/include/asm/orc_types.h: what a frame's end is counted from. */
const ORC_REG_SP = 5;

interface Orc {
  readonly register: number;
  /** Of the frame's end, which is above the return address. */
  readonly offset: number;
}

/** Looks an address up as `orc_find()` does (arch/x86/kernel/unwind_orc.c). */
function orcOf(file: string): (address: bigint) => Orc {
  const image = readFileSync(file);
  const sections = new Map<string, { address: bigint; bytes: Buffer }>();
  const at = Number(image.readBigUInt64LE(40));
  const [size, count, names] = [58, 60, 62].map((offset) => image.readUInt16LE(offset)) as [
    number,
    number,
    number,
  ];
  const header = (index: number) => image.subarray(at + index * size, at + (index + 1) * size);
  const start = (index: number) => Number(header(index).readBigUInt64LE(24));
  for (let index = 0; index < count; index++) {
    const name = start(names) + header(index).readUInt32LE(0);
    const length = Number(header(index).readBigUInt64LE(32));
    sections.set(image.toString('latin1', name, image.indexOf(0, name)), {
      address: header(index).readBigUInt64LE(16),
      bytes: image.subarray(start(index), start(index) + length),
    });
  }
  const [ip, unwind] = [sections.get('.orc_unwind_ip')!, sections.get('.orc_unwind')!];
  const place = (index: number) => ip.address + BigInt(4 * index + ip.bytes.readInt32LE(4 * index));
  return (address) => {
    let [low, high] = [0, ip.bytes.length / 4 - 1];
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (place(middle) <= address) low = middle;
      else high = middle - 1;
    }
    return { register: unwind.bytes[6 * low + 4]! & 15, offset: unwind.bytes.readInt16LE(6 * low) };
  };
}

test('there is a kernel to look at', (t) =>
  t.true(kernels.length > 0, 'fetch one with: make kernels-debian'));

for (const { release, text } of kernels) {
  test(`${release}: the way to user mode is known, and its frames are as large as the unwinder says`, (t) => {
    const { wayOut } = proveConstants(text);
    if (typeof wayOut === 'string') return t.fail(wayOut);
    // struct inactive_task_frame (arch/x86/include/asm/switch_to.h): six registers below the return address.
    t.is(wayOut.saved, 48);
    const orc = orcOf(cachedKernels().find((kernel) => kernel.release === release)!.vmlinux);
    const { switching, scheduling, leaving, last } = wayOut;
    const all = [switching, scheduling, leaving, last].flatMap((returns) => [...returns]);
    t.true(all.length >= 3);
    let compared = 0;
    for (const [address, depth] of all) {
      const { register, offset } = orc(address - 1n);
      // A frame that is counted from another register is as large as it is.
      if (register !== ORC_REG_SP) continue;
      t.is(depth + 8, offset, `0x${address.toString(16)}`);
      compared += 1;
    }
    t.true(compared >= 2, `${compared} of ${all.length} compared`);
    t.log(`${compared} of ${all.length} compared`);
  });

  test(`${release}: without the code of one of its functions nothing is known of the way, and the function is named`, (t) => {
    for (const name of ['__switch_to_asm', '__schedule', 'schedule'] as const) {
      const entry = text.layout.symbol(name)!;
      const { wayOut } = proveConstants({
        ...text,
        read: (address, length) => (address === entry ? Uint8Array.of(0xc3) : text.read(address, length)),
      });
      t.is(typeof wayOut, 'string');
      t.regex(String(wayOut), new RegExp(`${name}\\(\\) does not show`));
    }
  });
}

const ENTRY = 0xffff_ffff_8100_0000n;
const TARGET = ENTRY + 0x100n;

/** `call` at an offset of the function. */
function call(from: number): number[] {
  const bytes = Buffer.alloc(5);
  bytes[0] = 0xe8;
  bytes.writeInt32LE(Number(TARGET - ENTRY) - from - 5, 1);
  return [...bytes];
}

function returns(...bytes: number[]): [bigint, number][] {
  const code = decode(Uint8Array.from([...bytes, 0xc3, 0xc3, 0xc3]), ENTRY);
  return [...returnsFrom(code, ENTRY, TARGET)].map(([address, depth]) => [address - ENTRY, depth]);
}

test('what is pushed, reserved and popped counts, on whatever way', (t) => {
  t.deepEqual(returns(...call(0)), [[5n, 0]]);
  // push %rbx; sub $0x18,%rsp; call; add $0x18,%rsp; pop %rbx
  t.deepEqual(returns(0x53, 0x48, 0x83, 0xec, 0x18, ...call(5), 0x48, 0x83, 0xc4, 0x18, 0x5b), [[10n, 32]]);
  // push %rbx; je over the call; call; pop %rbx; ret, and the other way the same
  t.deepEqual(returns(0x53, 0x74, 0x05, ...call(3), 0x5b), [[8n, 8]]);
});

test('where ways differ, or a stack is set, nobody knows a depth', (t) => {
  // je over the push; push %rbx; call
  t.deepEqual(returns(0x74, 0x01, 0x53, ...call(3)), []);
  // and $-64,%rsp; call
  t.deepEqual(returns(0x48, 0x83, 0xe4, 0xc0, ...call(4)), []);
  // mov %rdi,%rsp; call
  t.deepEqual(returns(0x48, 0x89, 0xfc, ...call(3)), []);
  // leave; call
  t.deepEqual(returns(0xc9, ...call(1)), []);
});

test('a stack pointer that is saved twice is saved nowhere', (t) => {
  const save = [0x48, 0x89, 0x67, 0x10]; // mov %rsp,0x10(%rdi)
  const place = { offset: 0x10, size: 8 };
  const of = (...bytes: number[]) =>
    depthAtSave(decode(Uint8Array.from([...bytes, 0xc3]), ENTRY), ENTRY, place);
  t.is(of(0x55, 0x53, ...save), 16);
  t.is(of(0x55, 0x53, ...save, ...save), null);
  t.is(of(0x55, 0x53), null);
});

test('a call is not the last thing of a function because another function begins at the next multiple of 16', (t) => {
  // call; mov %rax,(%rdi); ret, and behind it a function with endbr64: activate_task() of 6.19
  const bytes = Uint8Array.from([
    ...call(0),
    0x48,
    0x89,
    0x07,
    0xc3,
    ...new Array(7).fill(0x90),
    0xf3,
    0x0f,
    0x1e,
    0xfa,
  ]);
  const code = decode(bytes, ENTRY);
  t.is(code.get(ENTRY)!.flow, 'call');
  t.true(code.has(ENTRY + 5n));
  const padded = Uint8Array.from([...call(0), ...new Array(11).fill(0x90), 0xf3, 0x0f, 0x1e, 0xfa]);
  t.is(decode(padded, ENTRY).get(ENTRY)!.flow, 'end');
});
