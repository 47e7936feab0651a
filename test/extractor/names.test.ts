import test from 'ava';
import { spellings, structNotFound } from '../../extractor/names.ts';

test('a structure is looked for under every spelling, the canonical one first', (t) => {
  t.deepEqual(spellings('rq'), ['rq', 'runqueue']);
  t.deepEqual(spellings('runqueue'), ['rq', 'runqueue']);
  t.deepEqual(spellings('task_struct'), ['task_struct']);
});

test('nearest names: typing errors and neighbours, best first, none that are far', (t) => {
  const existing = ['task_struct', 'tasks_struct', 'mm_struct', 'list_head', 'rq', 'rt_rq'];
  const error = structNotFound(['task_struc', 'zzzzzzzzzz'], existing, 'vmlinux');
  t.is(error.code, 'struct-not-found');
  t.is(
    error.message,
    'vmlinux has no structure task_struc (nearest: task_struct, tasks_struct, mm_struct); no structure zzzzzzzzzz',
  );
  t.deepEqual(error.details.missing, ['task_struc', 'zzzzzzzzzz']);
});
