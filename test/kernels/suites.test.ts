import test from 'ava';
import { matrix } from '../../kernels/matrix.ts';
import { spanning } from '../../kernels/suites.ts';

const releases = (...names: string[]) => names.map((release) => ({ release }));

test('the tests take kernels that span the series, whichever there are', (t) => {
  const all = releases(
    '5.10.0-32-cloud-amd64',
    '6.12.117+deb13-cloud-amd64',
    '6.19.14+deb13-cloud-amd64',
    '7.0.13+deb13-cloud-amd64',
    '7.3.4+deb13-cloud-amd64',
    '7.3.4+deb13-rt-amd64',
  );
  t.deepEqual(
    spanning(all),
    releases('5.10.0-32-cloud-amd64', '6.19.14+deb13-cloud-amd64', '7.3.4+deb13-cloud-amd64'),
  );
  t.deepEqual(spanning(all.slice(1, 3)), releases('6.12.117+deb13-cloud-amd64', '6.19.14+deb13-cloud-amd64'));
  t.deepEqual(spanning([]), []);
});

test('the document has a row for each kernel, each reason and each anomaly', (t) => {
  const row = {
    title: '9.9.1-cloud-amd64 preempt=full',
    suite: 'sid',
    cells: { attach: 'ok', park: '3 ready', splice: 'refused' },
    refused: { splice: 'a member is missing' },
    holds: 17,
    anomalies: ['nice: 3 is not 7\nat a place'],
    seconds: 41.6,
  };
  const text = matrix([row], new Map([['9.9.1-cloud-amd64', { seconds: 2, structures: 77, symbols: 88 }]]));
  t.true(
    text.includes(
      '| 9.9.1-cloud-amd64 preempt=full | sid | 77 structures, 88 symbols, 2.0 s | ok | – | 3 ready | refused |',
    ),
    text,
  );
  t.true(text.includes('| 17 | 42 |'));
  t.true(text.includes('- 9.9.1-cloud-amd64 preempt=full, splice: a member is missing\n'));
  t.true(text.includes('- 9.9.1-cloud-amd64 preempt=full: nice: 3 is not 7\n'));
  t.true(matrix([], new Map()).includes('None.'));
});
