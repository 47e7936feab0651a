import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import test from 'ava';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { percpuSymbols } from '../../../extractor/elf/percpu.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { BANNER, buildElf, buildKernel } from './build-elf.ts';
import { refusal, scratch } from './scratch.ts';
import { nmSymbols, readelfBuildId, readelfSections, tool } from './tools.ts';

const SOURCE = `
const char linux_banner[] = "Linux version 5.4.0-made (me@host) (gcc) #7 SMP\\n";
struct rq { unsigned long nr; struct rq *next; } runqueues;
static volatile int hidden_runqueues = 1;
int main(void) { return hidden_runqueues + linux_banner[0] + (int)runqueues.nr; }
`;

function compile(at: (name: string) => string, ...flags: string[]): string {
  writeFileSync(at('k.c'), SOURCE);
  tool('gcc', '-g', '-O1', '-Wl,--build-id=sha1', ...flags, '-o', at('k'), at('k.c'));
  return at('k');
}

test('sections, symbols and build-id of a linked file are what readelf and nm say', async (t) => {
  const path = compile(scratch(t));
  await using file = await openKernelFile(path);
  t.is(file.elfPath, path);
  t.is(file.buildId, readelfBuildId(path));
  t.not(file.buildId, null);
  const expected = readelfSections(path);
  t.true(expected.length > 20);
  const bytes = readFileSync(path);
  for (const { name, address, size } of expected) {
    const section = file.section(name)!;
    t.is(section.name, name);
    t.is(section.size, size);
    t.is(section.address, address);
    t.true(bytes.includes(Buffer.from(section.read())), name);
  }
  const seen = new Map<string, bigint[]>();
  for (const { name, address } of file.symbols()) seen.set(name, [...(seen.get(name) ?? []), address]);
  t.deepEqual(new Map([...seen].sort()), new Map([...nmSymbols(path)].sort()));
  t.is(file.banner(), 'Linux version 5.4.0-made (me@host) (gcc) #7 SMP');
  t.is(file.release(), '5.4.0-made');
  t.is(await file.sha256(), tool('sha256sum', path).slice(0, 64));
});

test('lookup finds names that the linker stored as the tail of others', async (t) => {
  const path = compile(scratch(t));
  await using file = await openKernelFile(path);
  const found = file.lookup(['runqueues', 'hidden_runqueues', 'queues', 'runqueue', 'main', '']);
  const expected = nmSymbols(path);
  t.deepEqual([...found.keys()].sort(), ['hidden_runqueues', 'main', 'runqueues']);
  for (const [name, symbol] of found) t.deepEqual([symbol.address], expected.get(name));
  t.is(found.get('hidden_runqueues')!.local, true);
  t.is(found.get('runqueues')!.size, 16n);
});

test('of namesakes none is preferred, unless one is global', async (t) => {
  const at = scratch(t);
  writeFileSync(at('k'), buildKernel());
  await using file = await openKernelFile(at('k'));
  t.deepEqual([...file.lookup(['twice', 'schedule', 'outside']).keys()], ['schedule']);
  t.is([...file.symbols()].filter(({ name }) => name === 'twice').length, 2);
});

test('parts of sections, and nothing outside them', async (t) => {
  const at = scratch(t);
  writeFileSync(at('k'), buildElf([{ name: '.x', bytes: Buffer.from('0123456789') }]));
  await using file = await openKernelFile(at('k'));
  const section = file.section('.x')!;
  t.is(Buffer.from(section.read(3, 4)).toString(), '3456');
  const target = Buffer.alloc(6, '.');
  section.read(8, 2, target);
  t.is(target.toString(), '89....');
  t.is(section.read(10).length, 0);
  for (const [offset, length] of [
    [-1, 1],
    [0, 11],
    [10, 1],
    [11, 0],
    [0.5, 1],
    [0, Number.NaN],
    [2, -1],
  ] as const) {
    t.throws(() => section.read(offset, length), { code: 'corrupt-elf' }, `${offset} ${length}`);
  }
  t.throws(() => section.read(0, 7, target), { code: 'corrupt-elf' });
  t.is(file.section('.y'), null);
});

test('NOBITS sections have no bytes', async (t) => {
  const at = scratch(t);
  writeFileSync(at('k'), buildKernel());
  await using file = await openKernelFile(at('k'));
  t.is(file.section('.bss')!.size, 0);
  t.is(file.section('.bss')!.address, 0xffffffff83000000n);
});

test('a file without symbols still tells its banner, the complete one of several', async (t) => {
  const at = scratch(t);
  const weak = BANNER.replace('#1 SMP 2026-01-01', '# SMP');
  const template = 'Linux version %s (%s)\n\0';
  // Across the border of two pieces that the search reads at a time.
  const pad = Buffer.alloc((1 << 20) - 3 - Buffer.byteLength(`${template}${weak}\n\0`));
  writeFileSync(
    at('k'),
    buildElf([
      {
        name: '.rodata',
        bytes: Buffer.concat([Buffer.from(`${template}${weak}\n\0`), pad, Buffer.from(`${BANNER}\n\0`)]),
      },
    ]),
  );
  await using file = await openKernelFile(at('k'));
  t.is(file.banner(), BANNER);
  t.is([...file.symbols()].length, 0);
  t.is(file.lookup(['schedule']).size, 0);

  writeFileSync(at('weak'), buildElf([{ name: '.rodata', bytes: Buffer.from(`${template}${weak}\n\0`) }]));
  await using other = await openKernelFile(at('weak'));
  t.is(other.banner(), weak);
  t.is(other.release(), '6.1.0-test');
});

test('per-CPU symbols are told by their section, of either spelling', async (t) => {
  const at = scratch(t);
  writeFileSync(at('k'), buildKernel());
  await using file = await openKernelFile(at('k'));
  t.deepEqual(percpuSymbols(file, ['schedule', 'runqueues', 'nothing']), ['runqueues']);

  const old = buildElf(
    [{ name: '.data.percpu', address: 0xffffffff80500000n, bytes: Buffer.alloc(128) }],
    [
      { name: '__per_cpu_start', value: 0xffffffff80500000n, section: 1 },
      { name: '__per_cpu_end', value: 0xffffffff80500080n, section: 1 },
      { name: 'per_cpu__runqueues', value: 0xffffffff80500040n, size: 64n, bind: 0, section: 1 },
      { name: 'jiffies', value: 0xffffffff80500040n, section: 0xfff1 },
    ],
  );
  writeFileSync(at('old'), old);
  await using linux26 = await openKernelFile(at('old'));
  t.deepEqual(percpuSymbols(linux26, ['__per_cpu_start', 'per_cpu__runqueues', '__per_cpu_end']), [
    'per_cpu__runqueues',
  ]);
});

test('files over 4 GiB are read where their headers say, without reading the rest', async (t) => {
  const at = scratch(t);
  const far = 5 * 2 ** 30 + 12345;
  const elf = buildElf([
    { name: '.far', bytes: Buffer.from('beyond') },
    { name: '.near', bytes: Buffer.from('here') },
  ]);
  const table = Number(elf.readBigUInt64LE(40));
  // The section's bytes and the section table move behind a hole.
  elf.writeBigUInt64LE(BigInt(far + 4096), 40);
  elf.writeBigUInt64LE(BigInt(far), table + 64 + 24);
  const fd = openSync(at('sparse'), 'wx');
  writeSync(fd, elf);
  writeSync(fd, Buffer.from('beyond'), 0, 6, far);
  writeSync(fd, elf, table, elf.length - table, far + 4096);
  closeSync(fd);
  await using file = await openKernelFile(at('sparse'));
  t.is(Buffer.from(file.section('.far')!.read()).toString(), 'beyond');
  t.is(Buffer.from(file.section('.near')!.read()).toString(), 'here');
});

test('section numbers that do not fit the header stand in section 0', async (t) => {
  const at = scratch(t);
  const elf = buildElf([{ name: '.x', bytes: Buffer.from('extended') }]);
  const table = Number(elf.readBigUInt64LE(40));
  elf.writeBigUInt64LE(BigInt(elf.readUInt16LE(60)), table + 32);
  elf.writeUInt32LE(elf.readUInt16LE(62), table + 40);
  elf.writeUInt16LE(0, 60);
  elf.writeUInt16LE(0xffff, 62);
  writeFileSync(at('k'), elf);
  await using file = await openKernelFile(at('k'));
  t.is(Buffer.from(file.section('.x')!.read()).toString(), 'extended');
  t.true(tool('readelf', '-SW', at('k')).includes('.x'));
});

test('of more than 65,535 sections each is found, and the symbols in the last of them', async (t) => {
  const at = scratch(t);
  const filler = Array.from({ length: 66_000 }, (_, index) => ({
    name: `.s${index}`,
    bytes: Buffer.of(index & 0xff),
  }));
  const banner = { name: '.rodata.linux_banner', address: 0x1000n, bytes: Buffer.from(`${BANNER}\n\0`) };
  const symbols = [
    { name: 'linux_banner', value: 0x1000n, section: filler.length + 1 },
    { name: 'early', value: 0n, section: 7 },
  ];
  writeFileSync(at('k'), buildElf([...filler, banner], symbols));
  await using file = await openKernelFile(at('k'));
  const [, count] = /Number of section headers: +0 \((\d+)\)/.exec(tool('readelf', '-hW', at('k')))!;
  t.is(file.sectionNames.length, Number(count) - 1);
  t.deepEqual([...file.section('.s65999')!.read()], [65_999 & 0xff]);
  t.is(file.banner(), BANNER);
  const found = file.lookup(['linux_banner', 'early']);
  const rows = [...tool('readelf', '-sW', at('k')).matchAll(/ (\d+) (linux_banner|early)$/gm)];
  t.deepEqual(
    rows.map(([, index, name]) => [name, Number(index)]),
    symbols.map(({ name, section }) => [name, section]),
  );
  t.is(found.get('linux_banner')!.section, banner.name);
  t.is(found.get('early')!.section, '.s6');
});

test('raw BTF is a file of one section', async (t) => {
  const at = scratch(t);
  const btf = Buffer.concat([Buffer.from('9feb010018000000', 'hex'), Buffer.alloc(40)]);
  writeFileSync(at('vmlinux'), btf);
  await using file = await openKernelFile(at('vmlinux'));
  t.deepEqual(file.sectionNames, ['.BTF']);
  t.deepEqual(Buffer.from(file.section('.BTF')!.read()), btf);
  t.is(file.elfPath, null);
  t.is(file.buildId, null);
  t.is(file.banner(), null);
  t.is(file.release(), null);
  t.is(file.config(), null);
  t.is(file.lookup(['runqueues']).size, 0);
});

test('what is no kernel is refused by what it is', async (t) => {
  const at = scratch(t);
  mkdirSync(at('directory'));
  tool('mkfifo', at('pipe'));
  const elf = buildKernel();
  const changed = (offset: number, value: number): Buffer => {
    const copy = Buffer.from(elf);
    copy[offset] = value;
    return copy;
  };
  const cases: [string, Buffer | null, string][] = [
    ['missing', null, 'file-not-found'],
    ['directory', null, 'file-unreadable'],
    ['pipe', null, 'file-unreadable'],
    ['empty', Buffer.alloc(0), 'not-a-kernel'],
    ['text', Buffer.from('#!/bin/sh\necho hello\n'), 'not-a-kernel'],
    ['package', Buffer.from('!<arch>\ndebian-binary   '), 'not-a-kernel'],
    ['magic', elf.subarray(0, 4), 'truncated'],
    ['bits32', changed(4, 1), 'not-elf64'],
    ['big-endian', changed(5, 2), 'wrong-architecture'],
    ['aarch64', changed(18, 183), 'wrong-architecture'],
    ['no-table', Buffer.concat([elf.subarray(0, 40), Buffer.alloc(24)]), 'not-a-kernel'],
    ['half', elf.subarray(0, elf.length >> 1), 'truncated'],
  ];
  for (const [name, bytes, code] of cases) {
    if (bytes) writeFileSync(at(name), bytes);
    t.is(await refusal(at(name)), code as never, name);
  }
  t.is(await refusal('/dev/zero'), 'file-unreadable');
  t.is(await refusal(`${at('text')}/below`), 'file-not-found');
});

test('an interrupted hash ends', async (t) => {
  const at = scratch(t);
  writeFileSync(at('k'), buildKernel());
  const fd = openSync(at('k'), 'r+');
  ftruncateSync(fd, 4 * 2 ** 30);
  closeSync(fd);
  await using file = await openKernelFile(at('k'));
  const abort = new AbortController();
  const hash = file.sha256(abort.signal);
  abort.abort(new ExtractError('interrupted', 'stop'));
  await t.throwsAsync(hash, { code: 'interrupted' });
});
