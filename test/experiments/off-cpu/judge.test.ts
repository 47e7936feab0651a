import test from 'ava';
import { SOME_SETUP } from '../some-setup.ts';
import { judge, type OffCpuSample } from './judge.ts';

function hold(kernel: string, more: Partial<OffCpuSample> = {}): OffCpuSample {
  const times = { offMs: 2, returnedMs: 3, attempts: 1, pausedUs: 100 };
  return { kernel, target: 'hog', technique: 'park', isOff: true, ...times, ...more };
}

const times = <T>(count: number, one: T): T[] => Array(count).fill(one);

test('holds of one kernel, and those of all at once, are judged apart', (t) => {
  const alone = [...times(6, hold('6.1')), ...times(6, hold('5.10'))];
  t.deepEqual(
    judge(SOME_SETUP, alone).verdicts.map(({ outcome, found }) => [outcome, found]),
    [['met', '0 of 12 holds']],
  );
  const together = [
    ...times(6, hold('6.1', { together: 2, offMs: 20 })),
    ...times(5, hold('5.10', { together: 2, offMs: 10 })),
    hold('5.10', { together: 2, offMs: 10, technique: 'state', isOff: false }),
  ];
  const { verdicts, text } = judge(SOME_SETUP, [...alone, ...together]);
  t.deepEqual(
    verdicts.map(({ outcome, found }) => [outcome, found]),
    [
      ['met', '0 of 12 holds'],
      ['missed', '1 of 12 holds'],
    ],
  );
  t.regex(text, /^\| 5\.10 \| runs all the time \| park \| 6 \| 2\.00 /m);
  t.regex(text, /^\| 5\.10 \| park or state \| 6 \| 10\.0 .*\n\| 6\.1 \| park \| 6 \| 20\.0 /m);
});
