import test from 'ava';
import { wordsOf } from '../../../runtime/edit/member.ts';
import { hasMember, lackOf, membersOf, requiredField } from '../../../runtime/layout/members.ts';
import type { AnyLayout, MemberLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';

const int = (offset: number, size = 4, signed = true): MemberLayout => ({
  offset,
  size,
  type: size === 8 ? 'long' : 'int',
  kind: 'int',
  signed,
});

/** A kernel with these structures. */
function kernel(structs: Record<string, Record<string, MemberLayout>>): LayoutView {
  const source = { file: 'vmlinux', sha256: '', engine: 'dwarf', dwarfVersion: 5 };
  const facts = { release: '9.9', banner: null, buildId: null, arch: 'x86_64', schedulers: [] };
  const module: AnyLayout = {
    $kernel: { ...facts, source, producer: { name: 'test', version: '0' } },
    $symbols: {},
    $percpu: [],
    $constants: {},
    $enums: {},
    ...Object.fromEntries(
      Object.entries(structs).map(([name, members]) => [
        name,
        { $name: name, $sourceName: name, $kind: 'struct', $size: 64, ...members },
      ]),
    ),
  };
  return new LayoutView(module);
}

const modern = kernel({ task_struct: { __state: int(16, 4, false), on_rq: int(24) } });
const old = kernel({ task_struct: { state: int(0, 8) } });

test('a member has one name here and the kernel’s own offset, width and sign, whatever the kernel calls it', (t) => {
  const expected = {
    role: 'number',
    length: undefined,
    stride: undefined,
    bitSize: undefined,
    bits: undefined,
  };
  const [now, then] = [modern, old].map((layout) => membersOf(layout, 'task_struct', ['state']).state);
  t.like(now, { ...expected, offset: 16, size: 4, type: 'int', signed: false });
  t.like(then, { ...expected, offset: 0, size: 8, type: 'long', signed: true });
  t.deepEqual(wordsOf(modern, 'task_struct', ['state']), { state: { offset: 16, size: 4, signed: false } });
  t.is(membersOf(modern, 'task_struct', ['state'], 100).state.offset, 116);
});

test('what a kernel may lack is asked for as such, and its type says so', (t) => {
  const { on_rq } = membersOf(old, 'task_struct', ['on_rq?']);
  t.is(on_rq, undefined);
  // @ts-expect-error It may be undefined.
  t.throws(() => on_rq.offset, { instanceOf: TypeError });
  t.is(membersOf(modern, 'task_struct', ['on_rq']).on_rq.offset, 24);
  // @ts-expect-error Nobody has declared it.
  t.throws(() => membersOf(modern, 'task_struct', ['nobody_reads_this']), { instanceOf: TypeError });
  t.throws(() => membersOf(old, 'task_struct', ['on_rq']), {
    code: 'layout-absent-member',
    message: /on_rq in struct task_struct/,
  });
  t.throws(() => requiredField(modern, 'rq', 'curr'), {
    code: 'layout-absent-member',
    message: /--struct rq/,
  });
});

test('what a kernel lacks is named by all names that kernels have for it', (t) => {
  t.true(hasMember(modern, 'task_struct', 'state'));
  t.false(hasMember(modern, 'cfs_rq', 'nr_queued'));
  t.is(lackOf(modern, { task_struct: ['state', 'on_rq'] }), undefined);
  t.is(
    lackOf(modern, { task_struct: ['state'], cfs_rq: ['nr_queued'] }),
    'cfs_rq.nr_queued or cfs_rq.nr_running',
  );
});

test('bits move with their structure; an edit takes no bit and no odd size for a word', (t) => {
  const bit = { ...int(24), bitOffset: 3, bitSize: 1, bits: { offset: 24, size: 4, shift: 3 } };
  const layout = kernel({ task_struct: { frozen: bit, jobctl: int(32, 3) } });
  const own = membersOf(layout, 'task_struct', ['frozen']).frozen.bits!;
  const moved = membersOf(layout, 'task_struct', ['frozen'], 100).frozen.bits!;
  t.is(moved.offset, own.offset + 100);
  t.is(moved.shift, own.shift);
  for (const name of ['frozen', 'jobctl'] as const)
    t.throws(() => wordsOf(layout, 'task_struct', [name]), { code: 'layout-absent-member' });
});
