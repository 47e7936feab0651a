import test from 'ava';
import { until } from '../live/until.ts';

test('until gives what was found, and looks again after what was swallowed', async (t) => {
  let looks = 0;
  const found = await until(
    'the third look',
    async (swallow) => {
      looks += 1;
      const answer = looks < 3 ? Promise.reject(new Error('busy')) : Promise.resolve({ looks });
      return answer.catch(swallow);
    },
    60_000,
    1,
  );
  t.deepEqual(found, { looks: 3 });
  t.is(await until('zero is something', () => 0), 0);
});

test('at the limit it names what it waited for and the last error that was swallowed', async (t) => {
  const never = until('the guest answers', (swallow) => swallow(new Error('connect ENOENT')), 0, 1);
  await t.throwsAsync(never, {
    message: 'not within 0 s: the guest answers; the last look failed: Error: connect ENOENT',
  });
  await t.throwsAsync(
    until('it is so', () => false, 0, 1),
    { message: 'not within 0 s: it is so' },
  );
});

test('what a look throws is a fault of the test, and ends the wait at once', async (t) => {
  const wrong = until('nothing', () => {
    throw new TypeError('x is not a function');
  });
  await t.throwsAsync(wrong, { instanceOf: TypeError });
});
