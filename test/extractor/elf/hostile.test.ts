import { closeSync, ftruncateSync, openSync, writeFileSync, writeSync } from 'node:fs';
import test from 'ava';
import { buildElf, buildKernel, SHT } from './build-elf.ts';
import { fuzzKernelFiles } from './fuzz.ts';
import { refusal, scratch } from './scratch.ts';

test('cut at any byte, a kernel is refused', async (t) => {
  const at = scratch(t);
  const elf = buildKernel();
  writeFileSync(at('k'), elf);
  t.is(await refusal(at('k')), null);
  for (let length = 0; length < elf.length; length++) {
    writeFileSync(at('k'), elf.subarray(0, length));
    t.is(await refusal(at('k')), length < 4 ? 'not-a-kernel' : 'truncated', `${length} bytes`);
  }
});

test('cut at any byte, with the section table in front', async (t) => {
  const at = scratch(t);
  const elf = buildKernel();
  const table = Number(elf.readBigUInt64LE(40));
  const moved = Buffer.concat([elf.subarray(0, 64), elf.subarray(table), elf.subarray(64, table)]);
  moved.writeBigUInt64LE(64n, 40);
  for (let header = 128; header < 64 + elf.length - table; header += 64) {
    moved.writeBigUInt64LE(moved.readBigUInt64LE(header + 24) + BigInt(elf.length - table), header + 24);
  }
  writeFileSync(at('k'), moved);
  t.is(await refusal(at('k')), null);
  for (let length = 4; length < moved.length; length++) {
    writeFileSync(at('k'), moved.subarray(0, length));
    t.is(await refusal(at('k')), 'truncated', `${length} bytes`);
  }
});

test('headers that point anywhere', async (t) => {
  const at = scratch(t);
  const elf = buildKernel();
  const table = Number(elf.readBigUInt64LE(40));
  const count = elf.readUInt16LE(60);
  const names = table + 64 * (count - 1);
  const far = 2n ** 62n;
  const cases: [string, (copy: Buffer) => void, string][] = [
    ['table far away', (copy) => copy.writeBigUInt64LE(far, 40), 'corrupt-elf'],
    ['table behind the end', (copy) => copy.writeBigUInt64LE(BigInt(elf.length), 40), 'truncated'],
    ['table over the header', (copy) => copy.writeBigUInt64LE(8n, 40), 'corrupt-elf'],
    ['no table', (copy) => copy.writeBigUInt64LE(0n, 40), 'not-a-kernel'],
    ['header size', (copy) => copy.writeUInt16LE(40, 58), 'corrupt-elf'],
    ['too many sections', (copy) => copy.writeUInt16LE(0xfeff, 60), 'truncated'],
    [
      'endless sections',
      (copy) => {
        copy.writeUInt16LE(0, 60);
        copy.writeBigUInt64LE(2n ** 40n, table + 32);
      },
      'corrupt-elf',
    ],
    ['no sections', (copy) => copy.writeUInt16LE(0, 60), 'not-a-kernel'],
    ['no such name table', (copy) => copy.writeUInt16LE(count, 62), 'corrupt-elf'],
    ['name table is no table', (copy) => copy.writeUInt16LE(1, 62), 'corrupt-elf'],
    ['wild name', (copy) => copy.writeUInt32LE(0x7fffffff, table + 64), 'corrupt-elf'],
    [
      'name at the very end',
      (copy) => copy.writeUInt32LE(Number(elf.readBigUInt64LE(names + 32)), table + 64),
      'corrupt-elf',
    ],
    ['section far away', (copy) => copy.writeBigUInt64LE(far, table + 64 + 24), 'corrupt-elf'],
    [
      'section over the end',
      (copy) => copy.writeBigUInt64LE(BigInt(elf.length), table + 64 + 32),
      'truncated',
    ],
    ['section of 2^64 - 1', (copy) => copy.writeBigUInt64LE(2n ** 64n - 1n, table + 64 + 32), 'corrupt-elf'],
  ];
  for (const [what, change, code] of cases) {
    const copy = Buffer.from(elf);
    change(copy);
    writeFileSync(at('k'), copy);
    t.is(await refusal(at('k')), code as never, what);
  }
});

test('sections may share bytes: each reads what its header says', async (t) => {
  const at = scratch(t);
  const elf = buildElf([
    { name: '.a', bytes: Buffer.from('abcdef') },
    { name: '.b', bytes: Buffer.from('ghijkl') },
  ]);
  const table = Number(elf.readBigUInt64LE(40));
  elf.writeBigUInt64LE(elf.readBigUInt64LE(table + 64 + 24) + 3n, table + 128 + 24);
  writeFileSync(at('k'), elf);
  t.is(await refusal(at('k')), null);
});

test('huge tables in a sparse file cost no memory', async (t) => {
  const at = scratch(t);
  const tables: [string, number, string][] = [
    ['.symtab', SHT.symtab, 'corrupt-elf'],
    ['.strtab', SHT.strtab, 'corrupt-elf'],
    ['.shstrtab', SHT.strtab, 'corrupt-elf'],
    ['.text', SHT.progbits, 'corrupt-elf'],
  ];
  for (const [name, , code] of tables) {
    const elf = buildKernel();
    const table = Number(elf.readBigUInt64LE(40));
    const count = elf.readUInt16LE(60);
    const index = name === '.text' ? 1 : count - ['.shstrtab', '.strtab', '.symtab'].indexOf(name) - 1;
    const size = 3 * 2 ** 30;
    elf.writeBigUInt64LE(BigInt(size), table + 64 * index + 32);
    elf.writeBigUInt64LE(4096n * 4n, table + 64 * index + 24);
    const fd = openSync(at(name), 'wx');
    writeSync(fd, elf);
    ftruncateSync(fd, size + 2 ** 20);
    closeSync(fd);
    const before = ownMemory();
    t.is(await refusal(at(name)), code as never, name);
    t.true(ownMemory() - before < 256 << 20, name);
  }
});

/** Bytes of this thread's heap and buffers; resident memory is of all test files that run beside this one. */
function ownMemory(): number {
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

test('mutated kernels are read or refused, nothing else', async (t) => {
  const report = await fuzzKernelFiles({ runs: 1500, seed: 20260101 });
  t.log(report);
  const outcomes = Object.keys(report.outcomes);
  // Mutations that all end in one place would test nothing.
  for (const outcome of ['accepted', 'truncated', 'corrupt-elf', 'not-a-kernel', 'corrupt-archive']) {
    t.true(outcomes.includes(outcome), outcome);
  }
});
