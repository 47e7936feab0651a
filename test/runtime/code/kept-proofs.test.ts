/** Constants that were proved before: used for the very same code at the same place alone, and never from a file of somebody else's. */
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { CONSTANTS } from '../../../runtime/code/constants.ts';
import type { KernelText } from '../../../runtime/code/inquiry.ts';
import { KeptProofs } from '../../../runtime/code/kept-proofs.ts';
import { proveConstants } from '../../../runtime/code/prove.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { AnyLayout, MemberLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import type { SymbolName } from '../../../runtime/members/symbols.ts';
import { kernelTexts, o1Texts } from './kernel-text.ts';

const [real] = await kernelTexts();
if (real === undefined) throw new Error('no kernel of Debian is here: make kernels-debian');
const { layout, text } = real;

/** A folder of its own, and which files are in it: one that is written again is another file. */
function cacheFor(t: ExecutionContext) {
  const outer = mkdtempSync(path.join(tmpdir(), 'domsched-proofs-'));
  t.teardown(() => rmSync(outer, { recursive: true, force: true }));
  const kept = new KeptProofs(path.join(outer, 'constants'));
  const files = () => readdirSync(kept.directory).map((name) => path.join(kept.directory, name));
  const inodes = () => files().map((file) => lstatSync(file).ino);
  return { kept, files, inodes };
}

/** The kernel with one byte of a function changed, as a live patch or a lie would. */
function patched(name: SymbolName, at: number): KernelText {
  const target = layout.requireSymbol(name) + BigInt(at);
  const read = (address: bigint, length: number) => {
    const bytes = Uint8Array.from(text.read(address, length));
    const offset = Number(target - address);
    if (offset >= 0 && offset < bytes.length) bytes[offset]! ^= 1;
    return bytes;
  };
  return { ...text, read };
}

/** The kernel's layout, with one member that the proof asks for somewhere else. */
async function withFlagsElsewhere(): Promise<LayoutView> {
  const { store, folder } = (await knownKernels()).find(({ release }) => release === real!.release)!;
  const { layout: module } = (await import(path.join(store, folder, 'index.ts'))) as { layout: AnyLayout };
  const task = module.task_struct as unknown as Record<'flags', MemberLayout>;
  const flags = { ...task.flags, offset: task.flags.offset + 4 };
  return new LayoutView({ ...module, task_struct: { ...task, flags } } as unknown as AnyLayout);
}

for (const { release, text: any } of [real, (await o1Texts())[0]!]) {
  test(`${release}: what was kept is what is proved, for the same code without another proof`, (t) => {
    const { kept, inodes } = cacheFor(t);
    const proved = proveConstants(any);
    t.deepEqual(kept.prove(any), proved);
    const [first] = inodes();
    t.deepEqual(kept.prove(any), proved);
    t.deepEqual(inodes(), [first]);
    // Every value and every frame is there: the comparison above is not one of nothing.
    t.true(proved.proofs.some(({ value }) => value !== null));
  });
}

test('frames of the way out are kept, too', (t) => {
  const { kept } = cacheFor(t);
  const { wayOut } = kept.prove(text);
  if (typeof wayOut === 'string') return t.fail(wayOut);
  t.true(wayOut.switching.size > 0 && wayOut.leaving.size > 0);
  t.deepEqual(kept.prove(text).wayOut, wayOut);
});

test('one byte of one function: proved anew, and what is kept stays true to its code', (t) => {
  const { kept, inodes } = cacheFor(t);
  kept.prove(text);
  const [first] = inodes();
  // Where it is in no instruction's mask too: all bytes that were read count.
  for (const at of [0, 300, 2_000]) {
    const other = patched('get_signal', at);
    t.deepEqual(kept.prove(other), proveConstants(other));
    const [next] = inodes();
    t.not(next, first, `${at}`);
    // And back.
    t.deepEqual(kept.prove(text), proveConstants(text));
    t.not(inodes()[0], next, `${at}`);
  }
});

test('a byte by which a constant is another one gives no old value', (t) => {
  const { kept } = cacheFor(t);
  const { functions } = CONSTANTS.find(({ name }) => name === 'TIF_SIGPENDING')!.witnesses[0]!;
  const name = functions.find((candidate) => layout.symbol(candidate) !== undefined)!;
  kept.prove(text);
  const entry = layout.requireSymbol(name);
  const code = Buffer.from(text.read(entry, 256));
  // lock or byte ptr [reg], 4 (Intel SDM vol. 2A): the mask is its last byte.
  const mask = code.findIndex(
    (byte, at) => byte === 0xf0 && code.subarray(at, at + 8).includes(0x04) && code[at + 1] === 0x80,
  );
  const last = code.indexOf(0x04, mask + 2);
  t.true(mask >= 0 && last > mask);
  const other = patched(name, last);
  t.is(proveConstants(text).get('TIF_SIGPENDING'), 4n);
  t.throws(() => kept.prove(other).get('TIF_SIGPENDING'), { message: /TIF_SIGPENDING is not proved/ });
});

test('another place, another layout, another version of ours: proved anew', async (t) => {
  const { kept, inodes } = cacheFor(t);
  const expected = proveConstants(text);
  const slide = 0x1260_0000n;
  const moved: KernelText = {
    layout,
    slide,
    read: (address, length) => text.read(address - slide, length),
    readData: (address, length) => text.readData(address - slide, length),
  };
  t.deepEqual(kept.prove(text), expected);
  t.deepEqual(kept.prove(moved), proveConstants(moved));
  // Frames are addresses of the running kernel.
  t.notDeepEqual(kept.prove(moved).wayOut, expected.wayOut);
  t.is(inodes().length, 2);
  t.deepEqual(kept.prove(text, 'another'), expected);
  t.is(inodes().length, 3);
  // Of the same build, but with a member elsewhere.
  const other = { ...text, layout: await withFlagsElsewhere() };
  const before = inodes();
  t.deepEqual(kept.prove(other), proveConstants(other));
  t.is(inodes().length, 3);
  t.notDeepEqual(inodes(), before);
  t.notDeepEqual(proveConstants(other).proofs, expected.proofs);
});

test('a file that is damaged, or that others may have written, counts for nothing', (t) => {
  const { kept, files } = cacheFor(t);
  const expected = proveConstants(text);
  kept.prove(text);
  const [file] = files();
  const good = readFileSync(file!, 'utf8');
  const lie = good.replace(/"name":"TIF_SIGPENDING","value":"0x4"/, '"name":"TIF_SIGPENDING","value":"0x8"');
  t.not(lie, good);
  const contents = [
    lie,
    '',
    '{',
    'null',
    '[]',
    '{}',
    good.slice(0, -20),
    good.replace('"text"', '"no such"'),
  ];
  for (const content of [
    ...contents,
    good.replace('"questions":[', '"questions":[7,'),
    'x'.repeat(2 << 20),
  ]) {
    writeFileSync(file!, content);
    t.deepEqual(kept.prove(text), expected, content.slice(0, 60));
    t.is(readFileSync(file!, 'utf8'), good, 'it is written again');
  }
  // Files and folders that are not ours alone are not even read: what is in them would be right.
  const ino = () => lstatSync(file!).ino;
  const used = ino();
  kept.prove(text);
  t.is(ino(), used);
  chmodSync(file!, 0o622);
  kept.prove(text);
  const again = ino();
  t.not(again, used);
  if (process.getuid?.() === 0) {
    chownSync(file!, 1, 1);
    kept.prove(text);
    t.not(ino(), again);
  } else t.log('a file of another user was not tried: only root can give one away');
  const elsewhere = path.join(kept.directory, '..', 'elsewhere');
  writeFileSync(elsewhere, good);
  rmSync(file!);
  symlinkSync(elsewhere, file!);
  kept.prove(text);
  t.true(lstatSync(file!).isFile());
  chmodSync(kept.directory, 0o777);
  const open = ino();
  t.deepEqual(kept.prove(text), expected);
  t.is(ino(), open, 'nothing is put there');
  writeFileSync(file!, lie);
  t.deepEqual(kept.prove(text), expected);
  t.is(readFileSync(file!, 'utf8'), lie);
});

test('without a place for files everything is proved as ever', (t) => {
  const kept = new KeptProofs('/dev/null/constants');
  t.deepEqual(kept.prove(text), proveConstants(text));
  // As where the files of the program cannot be read.
  const { kept: other } = cacheFor(t);
  t.deepEqual(other.prove(text, null), proveConstants(text));
  t.throws(() => readdirSync(other.directory), { code: 'ENOENT' });
});
