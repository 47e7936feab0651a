import test from 'ava';
import { StrictPriority } from './strict-priority.ts';

const task = (comm: string, pid = 7, isKernel = false) => ({ comm, pid, isKernel });
const make = () => new StrictPriority({ guest: 'u1', comm: 'pi1' }, ['agent']);

test('the subject is stopped while anybody of any guest is runnable, and goes on when all rest', (t) => {
  const policy = make();
  t.is(policy.hear('u1', [task('pi1', 12), task('agent')]), undefined);
  t.deepEqual(policy.hear('u2', [task('pi4')]), { guest: 'u1', verb: 'stop', pid: 12 });
  t.is(policy.hear('u1', [task('pi2')]), undefined);
  t.is(policy.hear('u2', [task('agent')]), undefined, 'pi2 still is');
  t.deepEqual(policy.hear('u1', [task('agent')]), { guest: 'u1', verb: 'cont', pid: 12 });
  t.deepEqual(
    policy.hear('u2', [task('pi1')]),
    { guest: 'u1', verb: 'stop', pid: 12 },
    'another guest’s pi1',
  );
});

test('who is not told to be ignored counts; threads of the kernel do not; both are counted', (t) => {
  const policy = new StrictPriority({ guest: 'u1', comm: 'pi1' }, []);
  t.is(policy.hear('u1', [task('pi1', 12), task('agent', 3, true)]), undefined);
  t.is(policy.hear('u1', [task('pi1', 12), task('agent')])?.verb, 'stop');
  t.deepEqual(policy.counts, { looks: 2, ignored: 0, kernel: 1, ignoredAlone: 0, refused: 0 });
  const told = make();
  told.hear('u1', [task('pi1'), task('agent')]);
  told.hear('u1', [task('pi2'), task('agent')]);
  told.refuse();
  t.deepEqual(told.counts, { looks: 2, ignored: 2, kernel: 0, ignoredAlone: 1, refused: 1 });
});

test('guests that claim more and more names are bounded, and nothing is ordered before the subject was seen', (t) => {
  const policy = make();
  for (let i = 0; i < 100; i++) t.is(policy.hear(`g${i}`, [task('pi4')]), undefined);
  t.is(policy.counts.refused, 84);
});
