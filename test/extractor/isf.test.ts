import { execFileSync } from 'node:child_process';
import test, { type ExecutionContext } from 'ava';
import { z } from 'zod';
import { linkKernel } from './fixture.ts';
import { domsched } from './run-cli.ts';

// The shape that volatility3's schema of version 6.2.0 asks for, in zod's words.
const strict = z.strictObject;
const type: z.ZodType<ReadIsfType> = z.union([
  strict({ kind: z.enum(['base', 'struct', 'union', 'enum']), name: z.string() }),
  strict({ kind: z.literal('function') }),
  strict({
    kind: z.literal('bitfield'),
    bit_position: z.int(),
    bit_length: z.int(),
    type: strict({ kind: z.enum(['base', 'enum']), name: z.string() }),
  }),
  strict({
    kind: z.literal('pointer'),
    get subtype() {
      return type;
    },
  }),
  strict({
    kind: z.literal('array'),
    count: z.int(),
    get subtype() {
      return type;
    },
  }),
]);
const source = strict({
  kind: z.enum(['dwarf', 'symtab', 'system-map']),
  name: z.string(),
  hash_type: z.literal('sha256'),
  hash_value: z.string().regex(/^[0-9a-f]+$/),
});
const schema = strict({
  metadata: strict({
    format: z.string().regex(/^6\.\d+\.\d+$/),
    producer: strict({ name: z.string(), version: z.string() }),
    linux: strict({ symbols: z.array(source), types: z.array(source) }),
  }),
  base_types: z.record(
    z.string(),
    strict({
      size: z.int(),
      signed: z.boolean(),
      kind: z.enum(['void', 'int', 'float', 'char', 'bool']),
      endian: z.literal('little'),
    }),
  ),
  user_types: z.record(
    z.string(),
    strict({
      kind: z.enum(['struct', 'union', 'class']),
      size: z.int(),
      fields: z.record(z.string(), strict({ type, offset: z.int(), anonymous: z.boolean().optional() })),
    }),
  ),
  enums: z.record(
    z.string(),
    strict({ size: z.int(), base: z.string(), constants: z.record(z.string(), z.number()) }),
  ),
  symbols: z.record(
    z.string(),
    strict({ address: z.number(), type: type.optional(), constant_data: z.base64().optional() }),
  ),
});

type ReadIsfType =
  | { kind: 'base' | 'struct' | 'union' | 'enum'; name: string }
  | { kind: 'function' }
  | {
      kind: 'bitfield';
      bit_position: number;
      bit_length: number;
      type: { kind: 'base' | 'enum'; name: string };
    }
  | { kind: 'pointer'; subtype: ReadIsfType }
  | { kind: 'array'; count: number; subtype: ReadIsfType };

const SOURCE = `
enum colour { RED = -1, GREEN, HUGE = 0x7fffffff };
struct list_head { struct list_head *next, *prev; };
struct all {
  char name[16];
  unsigned long grid[2][3];
  struct list_head list, *head, **heads;
  int (*call)(int);
  const char *text;
  void *anything;
  unsigned low:3, high:20, next:30;
  enum colour colour;
  _Bool flag;
  double ratio;
  unsigned short tiny;
  union { int number; struct { short left, right; }; };
  struct { long inner; } named[4];
  enum { ONE } unnamed;
  long long wide;
  char tail[];
};
struct runqueue { int x; } per_cpu__runqueues;
struct task_struct { struct all all; } init_task;
struct all instance;
const char linux_banner[] = "Linux version 6.6.6-isf (a@b) (gcc) #1\\n";
`;

function extractIsf(t: ExecutionContext, file: string): { text: string; isf: z.infer<typeof schema> } {
  const { code, stdout, stderr } = domsched(['extract', file, '--all', '--format', 'isf', '--json', '-']);
  t.is(code, 0, stderr);
  return { text: stdout, isf: schema.parse(JSON.parse(stdout)) };
}

test('ISF has the shape of its schema, and every name in it leads somewhere', (t) => {
  const { isf } = extractIsf(t, linkKernel(t, SOURCE));
  const visit = (type: ReadIsfType): void => {
    if (type.kind === 'base') t.true(type.name in isf.base_types, type.name);
    else if (type.kind === 'struct' || type.kind === 'union')
      t.is(isf.user_types[type.name]?.kind, type.kind);
    else if (type.kind === 'enum') t.true(type.name in isf.enums, type.name);
    else if (type.kind === 'bitfield') visit(type.type);
    else if (type.kind === 'pointer' || type.kind === 'array') visit(type.subtype);
  };
  for (const { fields } of Object.values(isf.user_types))
    for (const field of Object.values(fields)) visit(field.type);
  for (const { base } of Object.values(isf.enums)) t.true(base in isf.base_types);
});

test('fields lie where gdb says, with the types of the source', (t) => {
  const file = linkKernel(t, SOURCE);
  const { isf } = extractIsf(t, file);
  const { fields, size } = isf.user_types.all!;
  const gdb = (expression: string) =>
    Number(
      execFileSync('gdb', ['-batch', '-nx', '-ex', `p/d ${expression}`, file], { encoding: 'utf8' }).split(
        '= ',
      )[1],
    );
  t.is(size, gdb('sizeof(struct all)'));
  const names = ['grid', 'list', 'heads', 'call', 'colour', 'flag', 'ratio', 'tiny', 'named', 'wide', 'tail'];
  for (const name of names) t.is(fields[name]!.offset, gdb(`(long)&((struct all *)0)->${name}`), name);

  const base = (name: string) => ({ kind: 'base', name });
  t.deepEqual(fields.name?.type, { kind: 'array', count: 16, subtype: base('char') });
  t.deepEqual(fields.grid?.type, {
    kind: 'array',
    count: 2,
    subtype: { kind: 'array', count: 3, subtype: base('unsigned long') },
  });
  const list = { kind: 'struct', name: 'list_head' };
  t.deepEqual(fields.list?.type, list);
  t.deepEqual(fields.head?.type, { kind: 'pointer', subtype: list });
  t.deepEqual(fields.heads?.type, { kind: 'pointer', subtype: { kind: 'pointer', subtype: list } });
  t.deepEqual(fields.call?.type, { kind: 'pointer', subtype: { kind: 'function' } });
  t.deepEqual(fields.text?.type, { kind: 'pointer', subtype: base('char') });
  t.deepEqual(fields.anything?.type, { kind: 'pointer', subtype: base('void') });
  t.deepEqual(fields.colour?.type, { kind: 'enum', name: 'colour' });
  t.deepEqual(fields.unnamed?.type, base('unsigned int'));
  t.deepEqual(fields.flag?.type, base('_Bool'));
  t.deepEqual(fields.wide?.type, base('long long'));
  t.deepEqual(fields.tail?.type, { kind: 'array', count: 0, subtype: base('char') });
  t.deepEqual(isf.enums.colour, {
    size: 4,
    base: 'int',
    constants: { RED: -1, GREEN: 0, HUGE: 0x7fffffff },
  });
});

test('bit fields count from the storage unit, which a reader reads whole', (t) => {
  const { isf } = extractIsf(t, linkKernel(t, SOURCE));
  const { low, high, next } = isf.user_types.all!.fields;
  // gcc packs 3 + 20 bits into one unsigned int; 30 more do not fit and begin the next one.
  const field = (bit_position: number, bit_length: number) => ({
    kind: 'bitfield',
    bit_position,
    bit_length,
    type: { kind: 'base', name: 'unsigned int' },
  });
  t.deepEqual(low?.type, field(0, 3));
  t.deepEqual(high?.type, field(3, 20));
  t.deepEqual(next?.type, field(0, 30));
  t.is(high?.offset, low?.offset);
  t.is(next?.offset, low!.offset + 4);
});

test('anonymous structures are types of their own, with offsets of their own', (t) => {
  const { isf } = extractIsf(t, linkKernel(t, SOURCE));
  const { fields } = isf.user_types.all!;
  const [anonymous] = Object.values(fields).filter((field) => field.anonymous);
  const outer = isf.user_types[(anonymous!.type as { name: string }).name]!;
  t.is(outer.kind, 'union');
  t.is(outer.fields.number?.offset, 0);
  const [nested] = Object.values(outer.fields).filter((field) => field.anonymous);
  const inner = isf.user_types[(nested!.type as { name: string }).name]!;
  t.deepEqual([inner.fields.left?.offset, inner.fields.right?.offset], [0, 2]);
  const array = fields.named!.type as { count: number; subtype: { name: string } };
  t.is(array.count, 4);
  t.is(isf.user_types[array.subtype.name]?.fields.inner?.offset, 0);
});

test('addresses have all their digits; the banner is there for the search in memory', (t) => {
  const file = linkKernel(t, SOURCE);
  const { text, isf } = extractIsf(t, file);
  const address = /^([0-9a-f]+) . init_task$/m.exec(execFileSync('nm', [file], { encoding: 'utf8' }))![1]!;
  t.regex(text, new RegExp(`"init_task":\\{"address":${BigInt(`0x${address}`)},`));
  t.deepEqual(isf.symbols.init_task?.type, { kind: 'struct', name: 'task_struct' });
  const banner = Buffer.from(isf.symbols.linux_banner!.constant_data!, 'base64').toString();
  t.is(banner, 'Linux version 6.6.6-isf (a@b) (gcc) #1\n\0');
  t.true('instance' in isf.symbols);
});
