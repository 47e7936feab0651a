import process from 'node:process';
import test from 'ava';
import { findKallsyms, type Kallsyms } from '../../../extractor/kallsyms/kallsyms.ts';
import { BANNER } from '../elf/build-elf.ts';
import { buildKallsyms, FORMATS, manySymbols, type TableFormat } from './build-kallsyms.ts';

const ADDRESS = 0xffffffff82000000n;
const BANNER_AT = ADDRESS;
const TABLES_AT = 0x400;

/** Read-only data with a banner at its start and the tables behind it. */
function rodata(format: TableFormat, count = 2000, between: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(TABLES_AT);
  head.write(`${BANNER}\n`, 'latin1');
  const at = ADDRESS + BigInt(TABLES_AT + between.length);
  const tables = buildKallsyms(manySymbols(count, BANNER_AT, format.encoding), format, at);
  return Buffer.concat([head, between, tables, Buffer.alloc(64)]);
}

function find(bytes: Buffer): Kallsyms | null {
  return findKallsyms(bytes, ADDRESS, (at, length) => {
    const offset = Number(at - ADDRESS);
    return offset >= 0 && offset + length <= bytes.length ? bytes.subarray(offset, offset + length) : null;
  });
}

for (const [name, format] of Object.entries(FORMATS)) {
  test(`tables as ${name} writes them: every symbol`, (t) => {
    // 257 and more after a border: the last marker's group is full, or has one name.
    for (const count of [1024, 1025, 2000]) {
      const found = find(rodata(format, count));
      t.is(found?.encoding, format.encoding);
      t.deepEqual(
        [...found!.all()].map(({ name: symbol, address }) => [symbol, address]),
        manySymbols(count, BANNER_AT, format.encoding).map(({ text, address }) => [text.slice(1), address]),
      );
    }
  });

  test(`tables as ${name} writes them: what misled others`, (t) => {
    // Characters before the tokens; the anchor alone in some text; another kernel's tables, whose banner is not here.
    const digits = [...'0123456789'].map((digit) => `${digit}\0`).join('');
    const other = buildKallsyms(manySymbols(1500, 0xffffffff87654320n, 'percpu'), FORMATS['5.10']!, 0n);
    const mislead = Buffer.concat([Buffer.from(`${digits}Tsys\0abc\0`.padEnd(64, '\0')), other]);
    const padded = Buffer.concat([mislead, Buffer.alloc((8 - (mislead.length % 8)) % 8)]);
    const found = find(rodata({ ...format, stray: 'ab\0T' }, 2000, padded));
    t.is(found?.count, 2000);
    t.deepEqual(
      [...found!.named(['runqueues', 'linux_banner', 'no_such', 'thrice', 'weak'])].map(
        ({ name: symbol, local }) => [symbol, local],
      ),
      [
        ['runqueues', false],
        ['thrice', true],
        ['thrice', true],
        ['weak', false],
        ['linux_banner', false],
      ],
    );
  });

  test(`tables as ${name} writes them: not taken where the banner is not`, (t) => {
    const bytes = rodata(format);
    bytes.fill(0, 0, 20);
    t.is(find(bytes), null);
  });
}

test('tables as of 4.x to 7.0: damaged anywhere they are read or refused, and reading ends', (t) => {
  let state = 7;
  const random = (below: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % below;
  };
  let refused = 0;
  for (const format of Object.values(FORMATS)) {
    const whole = rodata(format, 1100);
    for (let run = 0; run < 100; run++) {
      const bytes = Buffer.from(whole.subarray(0, run % 5 === 0 ? random(whole.length) : whole.length));
      for (let change = 0; change <= random(4); change++) {
        const at = random(bytes.length);
        const end = Math.min(bytes.length, at + 1 + random(random(8) === 0 ? 2000 : 4));
        bytes.fill([0, 0xff, 0x80, random(256)][random(4)]!, at, end);
      }
      const found = find(bytes);
      if (found === null) refused++;
      else t.is([...found.all()].length, found.count);
    }
  }
  t.true(refused > 60 && refused < 540, `${refused} of 600 refused`);
});

test('data full of what looks like the start of tables is not searched without end', (t) => {
  const bytes = Buffer.alloc(24 << 20);
  const marker = Buffer.alloc(16);
  for (const [index, value] of [0, 600, 1200, 2000].entries()) marker.writeUInt32LE(value, 4 * index);
  bytes.fill(marker);
  const tables = buildKallsyms(manySymbols(2000, BANNER_AT, 'percpu'), FORMATS['6.4 to 6.14']!, 0n);
  for (let copy = 1; copy <= 250; copy++) tables.copy(bytes, bytes.length - copy * (tables.length + 8));
  const before = process.cpuUsage();
  t.is(find(bytes), null);
  const { user } = process.cpuUsage(before);
  // Without a bound it is some 70 s; CPU time, as the machine may be busy.
  t.true(user < 20e6, `${user / 1e6} s of CPU`);
});
