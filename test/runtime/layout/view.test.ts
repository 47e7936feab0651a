import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import type { EnumeratorName, SymbolName } from '../../../runtime/members/symbols.ts';
import { generated } from './sample.ts';

test('paths lead through embedded structures, anonymous ones, named ones without a tag, and arrays', async (t) => {
  const layout = await generated(t);
  const offsets: [string, number, number][] = [
    ['nr_running', 0, 4],
    ['__proto__', 6, 1],
    ['cfs', 16, 24],
    ['cfs.h_nr_running', 16, 4],
    ['cfs.min_vruntime', 32, 8],
    ['whole', 40, 8],
    ['high', 44, 4],
    ['named.inner', 52, 4],
    ['pairs', 56, 48],
    ['pairs[1]', 80, 24],
    ['pairs[1].exec_clock', 88, 8],
    ['load[2]', 112, 4],
    ['tail', 120, 0],
  ];
  for (const [path, offset, size] of offsets) {
    const field = layout.field('rq', path);
    t.deepEqual([field.offset, field.size], [offset, size], path);
    t.true(layout.has('rq', path));
  }
  t.is(layout.struct('rq')?.member('pairs')?.at(1), 80);
  t.is(layout.struct('rq')?.sourceName, 'runqueue');
});

test('what a kernel lacks is undefined to those who ask and a refusal to those who need it', async (t) => {
  const layout = await generated(t);
  const absent = [
    'h_nr_queued',
    'cfs.h_nr_queued',
    'cfs.',
    '',
    '.',
    'nr_running.x',
    'curr.pid',
    'pairs.exec_clock',
    'pairs[2]',
    'pairs[-1]',
    'pairs[1]x',
    'nr_running[0]',
    '$size',
    'constructor',
    'toString',
    'cfs.__proto__',
  ];
  for (const path of absent) {
    t.false(layout.has('rq', path), path);
    t.is(layout.struct('rq')?.member(path), undefined);
    const error = t.throws(() => layout.field('rq', path), { instanceOf: DomschedError }, path);
    t.is(error?.code, 'layout-absent-member');
    t.is(error?.details.kernel, '6.1.0-test');
    t.is(error?.details.struct, 'rq');
    t.is(error?.details.member, path);
  }
  t.false(layout.has('prio_array'));
  t.false(layout.has('$kernel'));
  t.false(layout.has('constructor'));
  const error = t.throws(() => layout.field('prio_array', 'bitmap'), { instanceOf: DomschedError });
  t.regex(error!.message, /6\.1\.0-test.*prio_array.*domsched extract .*--struct prio_array/);
  t.regex(
    t.throws(() => layout.field('rq', 'cfs.nr_running'))!.message,
    /no member nr_running in struct cfs_rq.*h_nr_running/,
  );
});

test('an embedded structure that was not extracted is named with the way to get it', async (t) => {
  const { sampleLayout } = await import('../../codegen/sample.ts');
  const layout = sampleLayout();
  delete layout.structs.cfs_rq;
  const view = await generated(t, layout);
  t.false(view.has('rq', 'cfs.h_nr_running'));
  t.regex(t.throws(() => view.field('rq', 'cfs.h_nr_running'))!.message, /--struct cfs_rq/);
});

test('values are read at any place of a buffer', async (t) => {
  const layout = await generated(t);
  const view = new DataView(new ArrayBuffer(512));
  const at = 256;
  view.setUint32(at, 0xfffffffe, true);
  view.setInt16(at + 4, -2, true);
  view.setBigUint64(at + 8, 0xffff888000001234n, true);
  view.setBigInt64(at + 40, -3n, true);
  view.setInt32(at + 112, -4, true);
  view.setBigUint64(at + 88, 2n ** 53n - 1n, true);
  const field = (path: string) => layout.field('rq', path);
  t.is(field('nr_running').read(view, at), 0xfffffffe);
  t.is(field('class').read(view, at), -2);
  t.is(field('curr').read(view, at), 0xffff888000001234n);
  t.is(field('whole').number(view, at), -3);
  t.is(field('whole').bigint(view, at), -3n);
  t.is(field('load[2]').number(view, at), -4);
  t.is(field('pairs[1].exec_clock').number(view, at), 2 ** 53 - 1);
  t.is(field('nr_running').bigint(view, at), 0xfffffffen);
  const error = t.throws(() => field('curr').number(view, at), { instanceOf: DomschedError });
  t.is(error?.code, 'guest-inconsistent');
  t.throws(() => field('pairs[1].exec_clock').read(view, 450), { instanceOf: RangeError });
  t.throws(() => field('cfs').read(view), { instanceOf: DomschedError });
  t.throws(() => field('load').read(view), { instanceOf: DomschedError });
});

test('elements are bounded by their array, those of a flexible one by the buffer', async (t) => {
  const layout = await generated(t);
  const load = layout.field('rq', 'load');
  t.deepEqual([load.at(0), load.at(2), load.length, load.stride], [104, 112, 3, 4]);
  for (const index of [-1, 3, 1.5, Number.NaN, 2 ** 53])
    t.throws(() => load.at(index), { instanceOf: RangeError });
  t.is(layout.field('rq', 'tail').at(1000), 1120);
  t.throws(() => layout.field('rq', 'tail').at(-1), { instanceOf: RangeError });
  t.throws(() => layout.field('rq', 'nr_running').at(0), { instanceOf: DomschedError });
});

test('symbols, per-CPU names, constants and enumerators', async (t) => {
  const layout = await generated(t);
  t.is(layout.symbol('init_task'), 0xffffffff82a1a940n);
  t.is(layout.requireSymbol('schedule.isra.0' as SymbolName), 0xffffffff81000000n);
  t.is(layout.symbol('constructor' as SymbolName), undefined);
  t.true(layout.isPerCpu('runqueues'));
  t.false(layout.isPerCpu('init_task'));
  t.is(layout.constant('NEGATIVE' as EnumeratorName), -1);
  t.is(layout.enumerator('pid_type', 'PIDTYPE_MAX'), 4);
  t.is(layout.enumerator('pid_type', 'PIDTYPE_WIDE'), 2n ** 64n - 1n);
  t.is(layout.enumerator('pid_type', 'no'), undefined);
  t.regex(t.throws(() => layout.requireSymbol('no_such' as SymbolName))!.message, /6\.1\.0-test.*no_such/);
});
