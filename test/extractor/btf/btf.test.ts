import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { extractBtf } from '../../../extractor/btf/engine.ts';
import { BtfTypes } from '../../../extractor/btf/types.ts';
import type { StructureMember } from '../../../extractor/contract.ts';
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { loadEngine } from '../../../extractor/engines.ts';
import { ExtractError } from '../../../extractor/error.ts';
import { extractLayout } from '../../../extractor/extract.ts';
import { BtfBuilder } from '../build-btf.ts';
import { scratch } from '../elf/scratch.ts';
import { compile, compileWithBtf, scratchFolder } from '../fixture.ts';
import { fuzzInProcess } from '../fuzz-process.ts';

const everything = { structs: 'all', enums: [], required: [] } as const;
const only = (...structs: string[]) => ({ structs, enums: [], required: structs });

function membersOf(builder: BtfBuilder, name: string): StructureMember[] {
  return extractBtf(builder.bytes(), 'test.btf', only(name)).structs[name]!.members;
}

test('what bpftool reads in a blob built here is what was meant', (t) => {
  // The builder is this file's ruler, so another reader of the format measures it.
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  builder.record('struct', 'pair', 8, [
    ['a', int, 0],
    ['b', int, 37, 5],
  ]);
  const path = join(scratchFolder(t), 'blob.btf');
  writeFileSync(path, builder.bytes());
  const dump = execFileSync('bpftool', ['btf', 'dump', 'file', path], { encoding: 'utf8' });
  t.regex(dump, /\[1\] INT 'int' size=4 bits_offset=0 nr_bits=32 encoding=SIGNED/);
  t.regex(dump, /\[2\] STRUCT 'pair' size=8 vlen=2/);
  t.regex(dump, /'b' type_id=1 bits_offset=37 bitfield_size=5/);
});

test('kinds that a C compiler here seldom makes', (t) => {
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  const char = builder.int('char', 1, 1 | 2);
  const bool = builder.int('_Bool', 1, 4);
  const float = builder.type(16, { name: 'float', third: 4 });
  const oldFloat = builder.int('double', 8);
  const forward = builder.type(7, { name: 'later', flag: true });
  const tag = builder.type(18, { name: 'rcu', third: forward });
  const constTag = builder.type(10, { third: tag });
  const enum64 = builder.type(19, {
    name: 'wide',
    flag: true,
    vlen: 2,
    third: 8,
    trailer: [builder.string('LOW'), 0, 0x8000_0000, builder.string('TOP'), 0xffff_ffff, 0x7fff_ffff],
  });
  const plain = builder.type(6, {
    name: 'plain',
    vlen: 1,
    third: 4,
    trailer: [builder.string('ALL'), 0xffff_ffff],
  });
  const proto = builder.type(13, { vlen: 2, third: int, trailer: [0, builder.pointer(0), 0, 0] });
  const array = builder.array(builder.array(char, 3), 2);
  builder.type(17, { name: 'note', third: int, trailer: [0xffff_ffff] });
  const volatile = builder.type(9, { third: int });
  const restrict = builder.type(11, { third: builder.pointer(0) });
  builder.record('struct', 's', 128, [
    ['c', char, 0],
    ['b', bool, 8],
    ['f', float, 32],
    ['d', oldFloat, 64],
    ['p', builder.pointer(constTag), 128],
    ['w', enum64, 192],
    ['e', plain, 256],
    ['fn', builder.pointer(proto), 320],
    ['grid', array, 384],
    ['v', volatile, 448],
    ['r', restrict, 512],
    ['tail', builder.array(int, 0), 1024],
  ]);
  const { structs, enums } = extractBtf(builder.bytes(), 'test.btf', only('s'));
  const facts = structs.s!.members.map(({ name, offset, size, type, kind, signed }) => [
    ...[name, offset, size, type, kind],
    ...(signed === undefined ? [] : [signed]),
  ]);
  t.deepEqual(facts, [
    ['c', 0, 1, 'char', 'int', true],
    ['b', 1, 1, '_Bool', 'bool'],
    ['f', 4, 4, 'float', 'float'],
    ['d', 8, 8, 'double', 'float'],
    ['p', 16, 8, 'const union later *', 'pointer'],
    ['w', 24, 8, 'enum wide', 'enum', true],
    ['e', 32, 4, 'enum plain', 'enum', false],
    ['fn', 40, 8, 'int (*)(void *, ...)', 'pointer'],
    ['grid', 48, 6, 'char [2][3]', 'array', true],
    ['v', 56, 4, 'volatile int', 'int', true],
    ['r', 64, 8, 'void * restrict', 'pointer'],
    ['tail', 128, 0, 'int []', 'array', true],
  ]);
  t.is(structs.s!.members[4]!.target, 'later');
  // Two's complement of the words above, by hand.
  t.deepEqual(enums.wide!.values, { LOW: '-9223372036854775808', TOP: '9223372036854775807' });
  t.deepEqual(enums.plain!.values, { ALL: 4294967295 });
});

test('before 6.0 no enumeration said its sign, and old encoders say none of char', (t) => {
  const build = (sayChar: boolean, sayEnum: boolean) => {
    const builder = new BtfBuilder();
    const char = builder.int('char', 1);
    const signed = builder.int('signed char', 1, sayChar ? 1 : 0);
    const byte = builder.int('unsigned char', 1);
    const state = builder.type(6, {
      name: 'state',
      vlen: 2,
      third: 4,
      trailer: [builder.string('DEAD'), -4 >>> 0, builder.string('ON'), 1],
    });
    if (sayEnum) builder.type(6, { name: 'other', flag: true, third: 4 });
    builder.record('struct', 's', 8, [
      ['name', builder.array(char, 3), 0],
      ['s', signed, 24],
      ['u', byte, 32],
      ['e', state, 32],
    ]);
    const { structs, enums, unknowable } = extractBtf(builder.bytes(), 'test.btf', only('s'));
    return {
      signs: structs.s!.members.map(({ signed }) => signed),
      dead: enums.state!.values.DEAD,
      unknowable,
    };
  };
  // perf_event_state of 5.10: PERF_EVENT_STATE_DEAD = -4, an __s32 in the format's header of its time.
  const old = build(false, false);
  t.deepEqual(old.signs, [undefined, true, false, undefined]);
  t.is(old.dead, -4);
  t.true(old.unknowable!.includes('char-sign') && old.unknowable!.includes('enum-sign'));
  const current = build(true, true);
  t.deepEqual(current.signs, [false, true, false, false]);
  t.is(current.dead, 2 ** 32 - 4);
  t.false(current.unknowable!.includes('char-sign') || current.unknowable!.includes('enum-sign'));
});

test('bit fields from before kind_flag: integers of fewer bits', (t) => {
  const builder = new BtfBuilder();
  const narrow = builder.int('unsigned int', 4, 0, 5, 3);
  const alias = builder.type(8, { name: 'narrow_t', third: narrow });
  builder.record('struct', 's', 8, [
    ['a', narrow, 32],
    ['b', builder.type(10, { third: alias }), 40],
    ['whole', builder.int('int', 4, 1), 0],
  ]);
  const bits = membersOf(builder, 's').map(({ name, offset, bitOffset, bitSize }) => [
    name,
    offset,
    bitOffset,
    bitSize,
  ]);
  t.deepEqual(bits, [
    ['a', 4, 3, 5],
    ['b', 5, 3, 5],
    ['whole', 0, undefined, undefined],
  ]);
});

test('a typedef that names an anonymous structure stands for it where no tag does', (t) => {
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  const anonymous = builder.record('struct', '', 4, [['slock', int, 0]]);
  builder.type(8, { name: 'spinlock_t', third: builder.type(9, { third: anonymous }) });
  const tagged = builder.record('struct', 'both', 8, [['real', int, 0]]);
  builder.type(8, { name: 'both', third: anonymous });
  builder.type(8, { name: 'alias', third: tagged });
  const { structs } = extractBtf(builder.bytes(), 'test.btf', only('spinlock_t', 'both'));
  t.is(structs.spinlock_t?.members[0]?.name, 'slock');
  t.is(structs.both?.members[0]?.name, 'real');
  t.throws(() => extractBtf(builder.bytes(), 'test.btf', only('alias')), { code: 'struct-not-found' });
});

test('per-CPU variables come from their section; enumerators of anonymous enumerations by name', async (t) => {
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  const variable = builder.type(14, { name: 'runqueues', third: int, trailer: [1] });
  const other = builder.type(14, { name: 'other', third: int, trailer: [0] });
  builder.type(15, { name: '.data..percpu', vlen: 1, third: 0x30000, trailer: [variable, 0x2f000, 4] });
  builder.type(15, { name: '.data', vlen: 1, third: 4, trailer: [other, 16, 4] });
  builder.type(6, { vlen: 2, third: 4, trailer: [builder.string('WANTED'), 7, builder.string('NOT'), 8] });
  const result = extractBtf(builder.bytes(), 'test.btf', { ...everything, constants: ['WANTED'] });
  t.deepEqual(result.percpu, { runqueues: 0x2f000 });
  t.deepEqual(result.constants, { WANTED: 7 });
});

test('two definitions of one name: refused by name, both kept in all', (t) => {
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  builder.record('struct', 'twice', 4, [['a', int, 0]]);
  builder.record('struct', 'twice', 8, [['a', int, 32]]);
  const blob = builder.bytes();
  t.throws(() => extractBtf(blob, 'test.btf', only('twice')), {
    code: 'struct-conflict',
    message:
      /4 bytes in type 2, 8 bytes in type 3.*; take them all with --all, which calls the second twice___2$/,
  });
  // What the message advises.
  t.deepEqual(Object.keys(extractBtf(blob, 'test.btf', everything).structs), ['twice', 'twice___2']);
});

test('sizes, offsets and bits equal pahole on BTF that pahole made', async (t) => {
  const source = `
    struct inner { char a; long b; };
    struct outer { struct inner in[3]; unsigned x:3, y:9; struct inner *p; union { int u; char c[9]; }; short end; };
    struct outer it;`;
  const path = compileWithBtf(t, source);
  await using file = await openKernelFile(path);
  const { structs } = await (await loadEngine('btf')).extract(file, only('outer'));
  const printed = execFileSync('pahole', ['-F', 'btf', '-C', 'outer', path], { encoding: 'utf8' });
  const facts = (name: string) => {
    const match = new RegExp(
      `\\b${name}(?:\\[\\d+\\]|:\\d+)*; +/\\* +(\\d+)(?:: *(\\d+))? +(\\d+) \\*/`,
    ).exec(printed);
    t.truthy(match, `${name} in pahole's output`);
    return match!.slice(1);
  };
  const outer = structs.outer!;
  t.is(outer.size, Number(/size: (\d+),/.exec(printed)?.[1]));
  for (const name of ['in', 'p', 'end']) {
    const member = outer.members.find((member) => member.name === name)!;
    t.deepEqual(facts(name), [`${member.offset}`, undefined as unknown as string, `${member.size}`]);
  }
  for (const name of ['x', 'y']) {
    const member = outer.members.find((member) => member.name === name)!;
    // pahole counts bits from the storage unit's start, we from the byte's.
    const [unit, bit, size] = facts(name).map(Number);
    t.is(member.offset * 8 + member.bitOffset!, unit! * 8 + bit!);
    t.is(member.size, size!);
  }
});

test('a file without BTF says so', async (t) => {
  await using file = await openKernelFile(compile(t, 'struct s { int a; } s;'));
  const engine = await loadEngine('btf');
  t.regex((await engine.unavailable(file, only('s'))) ?? '', /no BTF/);
  await t.throwsAsync(engine.extract(file, only('s')), { code: 'no-debug-information' });
});

function sample(): BtfBuilder {
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  const pointer = builder.pointer(int);
  builder.record('struct', 'pair', 16, [
    ['a', int, 0],
    ['b', pointer, 64],
  ]);
  return builder;
}

const damages: [what: string, damage: (blob: Buffer) => Buffer, offset: number][] = [
  ['empty', () => Buffer.alloc(0), 0],
  ['magic', (blob) => blob.fill(0, 0, 2), 0],
  ['version', (blob) => blob.fill(9, 2, 3), 2],
  ['a header longer than the blob', (blob) => blob.fill(0xff, 4, 8), 4],
  ['a header shorter than itself', (blob) => blob.fill(0, 4, 8), 4],
  ['types beyond the end', (blob) => blob.fill(0xff, 12, 14), 8],
  ['strings beyond the end', (blob) => blob.fill(0xff, 20, 22), 16],
  ['strings without an end', (blob) => Buffer.from(blob).fill(0x41, blob.length - 1), -1],
  ['a type of no kind', (blob) => blob.fill(0, 24 + 7, 24 + 8), 28],
  ['more members than bytes', (blob) => blob.fill(0xff, 24 + 16 + 12 + 4, 24 + 16 + 12 + 6), 52],
  ['a name beyond the strings', (blob) => blob.fill(0xff, 24 + 16 + 12, 24 + 16 + 12 + 4), 52],
  [
    'a member of an unknown type',
    (blob) => blob.fill(0xee, 24 + 16 + 12 + 12 + 4, 24 + 16 + 12 + 12 + 8),
    68,
  ],
  [
    'an unprintable name',
    (blob) => {
      blob[blob.length - 3] = 7;
      return blob;
    },
    -1,
  ],
];

for (const [what, damage, offset] of damages) {
  test(`refused with the place: ${what}`, (t) => {
    const error = t.throws(() => extractBtf(damage(sample().bytes()), 'test.btf', only('pair')), {
      instanceOf: ExtractError,
      code: 'corrupt-btf',
    });
    if (offset >= 0) t.is(error?.details.offset, offset);
    t.regex(error!.message, /test\.btf is corrupt at byte \d+/);
  });
}

test('big-endian BTF is of another machine, and a file of it is known as that', async (t) => {
  const blob = sample().bytes();
  blob.writeUInt16BE(0xeb9f, 0);
  const path = join(scratchFolder(t), 'vmlinux-s390.btf');
  writeFileSync(path, blob);
  await using file = await openKernelFile(path);
  await t.throwsAsync((await loadEngine('btf')).extract(file, only('pair')), {
    code: 'wrong-architecture',
    message: /BTF of a big-endian machine/,
  });
});

/** What types of kinds 0 to 19 have beyond the common part, from the format's description. */
const KNOWN_KINDS = [
  [0, 0],
  [4, 0],
  [0, 0],
  [12, 0],
  [0, 12],
  [0, 12],
  [0, 8],
  [0, 0],
  [0, 0],
  [0, 0], // to CONST
  [0, 0],
  [0, 0],
  [0, 0],
  [0, 8],
  [4, 0],
  [0, 12],
  [0, 0],
  [4, 0],
  [0, 0],
  [0, 12], // to ENUM64
] as const;

test('a kind that is newer than this reader is passed over where the blob says how long its types are', (t) => {
  const build = (before: boolean) => {
    const builder = new BtfBuilder();
    const newer = () => builder.type(70, { name: 'newer', vlen: 2, trailer: [1, 2, 3, 4, 5] });
    if (before) newer();
    const int = builder.int('int', 4, 1);
    builder.record('struct', 's', 4, [['a', int, 0]]);
    newer();
    return builder;
  };
  const kinds = [...KNOWN_KINDS, ...Array.from({ length: 51 }, () => [4, 8] as const)];
  const expected = extractBtf(build(false).bytes(kinds), 'test.btf', only('s')).structs;
  t.deepEqual(extractBtf(build(true).bytes(kinds), 'test.btf', everything).structs, expected);
  t.is(expected.s!.members[0]!.type, 'int');
  // Without it nobody knows where the next type begins.
  for (const blob of [build(true).bytes(), build(true).bytes(kinds.slice(0, 70))]) {
    const error = t.throws(() => extractBtf(blob, 'test.btf', only('s')), {
      instanceOf: ExtractError,
      code: 'unsupported-btf',
      message: /type \(number 1\) of kind 70, which is newer .*, or damaged; give the vmlinux/,
    });
    t.like(error!.details, { kind: 70, type: 1 });
  }
});

test('a layout section that is wrong of kinds known here is not believed', (t) => {
  const builder = sample();
  const zeros = KNOWN_KINDS.map(() => [0, 0] as const);
  t.deepEqual(
    extractBtf(builder.bytes(zeros), 'test.btf', everything).structs,
    extractBtf(builder.bytes(), 'test.btf', everything).structs,
  );
});

test('data of a newer kind is not claimed to be corrupt', (t) => {
  const builder = new BtfBuilder();
  builder.record('struct', 's', 4, [['a', builder.type(20, { name: 'newer' }), 0]]);
  const blob = builder.bytes([...KNOWN_KINDS, [0, 0]]);
  t.throws(() => extractBtf(blob, 'test.btf', only('s')), { code: 'unsupported-btf' });
});

test('names beyond ASCII, and longer than any in C, are names', (t) => {
  const long = `core::ops::${'x'.repeat(1500)}`;
  const builder = new BtfBuilder();
  const int = builder.int('int', 4, 1);
  builder.record('struct', 'größe', 4, [['zähler', int, 0]]);
  builder.record('struct', long, 4, [['y', int, 0]]);
  builder.record('struct', 'Result<u32, (u8, u64)>', 4, [['__0', int, 0]]);
  for (const name of ['größe', long, 'Result<u32, (u8, u64)>']) {
    const [named, all] = [only(name), everything].map((one) => extractBtf(builder.bytes(), 'test.btf', one));
    t.deepEqual(named!.structs[name], all!.structs[name]);
    t.is(named!.structs[name]?.size, 4);
  }
  t.is(membersOf(builder, 'größe')[0]!.name, 'zähler');
});

test('a name without end, and names that are no text, are damage', (t) => {
  for (const name of ['x'.repeat(70_000), 'a\u202eb', 'a\u2028b', 'a\x1b[31mb']) {
    const builder = new BtfBuilder();
    builder.record('struct', name, 0, []);
    t.throws(() => extractBtf(builder.bytes(), 'test.btf', everything), { code: 'corrupt-btf' }, name);
  }
  const latin1 = new BtfBuilder();
  latin1.record('struct', 'gr__e', 0, []);
  const blob = latin1.bytes();
  blob[blob.length - 4] = 0xf6;
  t.throws(() => extractBtf(blob, 'test.btf', everything), { code: 'corrupt-btf' });
  // Few bytes may name many types.
  const builder = new BtfBuilder();
  builder.record('struct', 'y'.repeat(60_000), 0, []);
  for (let more = 0; more < 2000; more++) builder.record('struct', '', 0, []);
  const repeated = builder.bytes();
  for (let id = 2; id <= 2001; id++) repeated.writeUInt32LE(1, 24 + 12 * (id - 1));
  t.throws(() => extractBtf(repeated, 'test.btf', everything), {
    code: 'corrupt-btf',
    message: /long names without end/,
  });
});

test("a module's BTF is read with its kernel's, as bpftool reads it", async (t) => {
  const shared = 'struct list { struct list *next; }; struct task { int pid; struct list l; };';
  const kernel = compileWithBtf(
    t,
    `${shared} struct rq { struct task *curr; }; struct rq rq; struct task task;`,
  );
  const module = compile(
    t,
    `${shared} struct own { struct task *task; struct list in[3]; int bits:3; }; struct own own;`,
  );
  execFileSync('pahole', ['--btf_encode_force', '-J', '--btf_base', kernel, module]);
  await using file = await openKernelFile(module);
  await using base = await openKernelFile(kernel);
  const engine = await loadEngine('btf');
  const { structs } = await engine.extract(file, { ...everything, base });
  t.deepEqual(Object.keys(structs), ['list', 'own']);
  const dump = execFileSync('bpftool', ['-B', kernel, 'btf', 'dump', 'file', module, 'format', 'raw'], {
    encoding: 'utf8',
  });
  const [, size] = /STRUCT 'own' size=(\d+)/.exec(dump)!;
  t.is(structs.own!.size, Number(size));
  for (const { name, offset, bitOffset = 0, bitSize } of structs.own!.members) {
    const [, bits, width] = new RegExp(
      `'${name}' type_id=\\d+ bits_offset=(\\d+)(?: bitfield_size=(\\d+))?`,
    ).exec(dump)!;
    t.is(offset * 8 + bitOffset, Number(bits));
    t.is(bitSize, width === undefined ? undefined : Number(width));
  }
  // What is asked for by name may be the kernel's.
  const named = await engine.extract(file, { ...only('rq', 'own'), base });
  t.is(named.structs.rq!.members[0]!.target, 'task');
  const dwarf = await (await loadEngine('dwarf')).extract(file, only('own'));
  t.deepEqual(named.structs.own, dwarf.structs.own);
});

test("a module's BTF without its kernel's, with another's, or a kernel's with a base, is refused for what it is", async (t) => {
  const kernel = compileWithBtf(t, 'struct one { int a; }; struct one one;');
  const other = compileWithBtf(t, 'struct other_name { long b; struct third *t; } other_name;');
  const module = compile(t, 'struct one { int a; }; struct own { struct one in; } own;');
  execFileSync('pahole', ['--btf_encode_force', '-J', '--btf_base', kernel, module]);
  const [blob, [base, foreign]] = [await btfOf(module), await Promise.all([kernel, other].map(btfOf))];
  const types = (bytes: Uint8Array | undefined) => new BtfTypes(bytes!, 'kernel.btf');
  const refuse = (bytes: Uint8Array, base: BtfTypes | undefined, message: RegExp) =>
    t.throws(() => extractBtf(bytes, 'module.btf', everything, base), { code: 'btf-base', message });
  refuse(blob, undefined, /has a module's BTF, .* name a vmlinux or vmlinuz of that kernel with --base/);
  refuse(blob, types(foreign), /does not go on where that of kernel\.btf ends/);
  refuse(base!, types(base), /whole by itself; leave --base out/);
  t.throws(() => types(blob), { code: 'btf-base' });
  // Damage in the module is told by its own bytes.
  const cut = Buffer.from(blob);
  cut.writeUInt32LE(0xee_eeee, 24 + 12 + 4);
  const error = t.throws(() => extractBtf(cut, 'module.btf', everything, types(base)), {
    code: 'corrupt-btf',
  });
  t.like(error, { details: { file: 'module.btf', offset: 40 } });
});

async function btfOf(path: string): Promise<Uint8Array> {
  await using file = await openKernelFile(path);
  return file.section('.BTF')!.read();
}

test('a variable, a section or a function is no type of data', (t) => {
  for (const kind of [12, 14, 15]) {
    const builder = new BtfBuilder();
    const bad = builder.type(kind, { name: 'x', trailer: kind === 14 ? [0] : [] });
    builder.record('struct', 's', 4, [['a', bad, 0]]);
    t.throws(() => membersOf(builder, 's'), { code: 'corrupt-btf', message: /used as the type of data/ });
  }
});

test('type tags and typedefs of themselves are refused', (t) => {
  for (const kind of [18, 8, 10]) {
    const builder = new BtfBuilder();
    builder.record('struct', 's', 4, [['a', 2, 0]]);
    builder.type(kind, { name: 'loop', third: 2 });
    t.throws(() => membersOf(builder, 's'), { code: 'corrupt-btf' });
  }
});

test('truncated at any byte: a layout equal to the whole one is never claimed', (t) => {
  const blob = sample().bytes();
  for (let length = 0; length < blob.length; length++) {
    t.throws(() => extractBtf(blob.subarray(0, length), 'test.btf', everything), {
      instanceOf: ExtractError,
    });
  }
});

test('mutated BTF is read or refused, in bounded time and memory', async (t) => {
  const report = await fuzzInProcess('btf/fuzz.ts', 20_000, 20_060_320);
  t.log(report);
  t.deepEqual(
    Object.keys(report.outcomes).sort(),
    ['accepted', 'btf-base', 'corrupt-btf', 'unsupported-btf', 'wrong-architecture'].filter(
      (code) => code in report.outcomes,
    ),
  );
  // The runs are worth something only if neither outcome is rare.
  t.true(report.outcomes.accepted! > 1000);
  t.true(report.outcomes['corrupt-btf']! > 1000);
  t.true(report.peakRss < 500 * 2 ** 20, `${report.peakRss} bytes`);
});

test('types are decoded once: the same id is the same node', (t) => {
  const types = new BtfTypes(sample().bytes(), 'test.btf');
  t.is(types.count, 3);
  t.is(types.node(3), types.node(3));
});

test('BTF that goes on from a distilled base is refused by name, and the DWARF beside it is read', async (t) => {
  const at = scratch(t);
  const file = compileWithBtf(t, 'struct rq { int a; } rq;');
  writeFileSync(at('base'), 'any');
  execFileSync('objcopy', ['--add-section', `.BTF.base=${at('base')}`, file, at('module.ko')]);
  execFileSync('objcopy', ['--strip-debug', '--keep-section=.BTF', at('module.ko'), at('stripped.ko')]);
  const read = async (name: string) => {
    await using opened = await openKernelFile(at(name), { debugRoots: [] });
    const selection = { kind: 'named', names: ['rq'], scheduler: false } as const;
    return await extractLayout(opened, { engine: 'auto', selection });
  };
  await t.throwsAsync(read('stripped.ko'), {
    code: 'no-debug-information',
    message: /btf: its BTF goes on from \.BTF\.base.* a module with its DWARF says all/,
  });
  const { source, structs } = await read('module.ko');
  t.is(source.engine, 'dwarf');
  t.is(structs.rq?.size, 4);
});
