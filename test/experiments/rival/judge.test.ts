import test from 'ava';
import { SOME_SETUP } from '../some-setup.ts';
import { judge, paired } from './judge.ts';

/** A window of ten seconds: another one wants a CPU in the last one, and pi1 goes on for so long. */
function window(
  way: 'domsched' | 'rival',
  intervalMs: number,
  round: number,
  lateMs: number,
  guestMs: number,
) {
  const which = { way, intervalMs, round };
  const counts = { looks: 20, ignored: 20, kernel: 5, ignoredAlone: 15, refused: 0 };
  return [
    { ...which, process: 'pi1', stretches: [[0, 9_000 + lateMs]] },
    { ...which, process: 'pi4', stretches: [[9_000, 10_000]] },
    { ...which, seconds: 10, hostMs: 100, guestMs, ...(way === 'rival' ? { counts } : {}) },
  ];
}

test('each is compared within its round; only what lies on one side of its limit is decided', (t) => {
  t.deepEqual(
    paired(
      [
        { round: 1, v: 5 },
        { round: 2, v: 7 },
      ],
      [{ round: 2, v: 3 }],
      (our, their) => our.v - their.v,
    ),
    [4],
  );
  const raw = Array.from({ length: 6 }, (_, round) => [
    ...window('domsched', 500, round, 40, 0),
    ...window('rival', 500, round, 300, 10),
    ...window('rival', 10, round, round % 2 === 0 ? 10 : 100, 900),
  ]).flat();
  const { verdicts, text } = judge(SOME_SETUP, raw);
  t.deepEqual(
    verdicts.map(({ outcome }) => outcome),
    ['met', 'cannot be told here', 'met'],
  );
  // 2.6 % of ten seconds less; a tenth of the CPU time.
  t.regex(verdicts[0]!.found, /^-2\.60 % /);
  t.regex(verdicts[2]!.found, /^0\.10 times /);
  t.regex(text, /^\| domsched \| 60 \| 6 \| 6 \| 40 \| 40 \| 40 \| 0 \| 0\.40 % \| 100 % \|$/m);
  t.regex(text, /^\| agents, every 500 ms \| 1\.0 \| 10\.0 \| 100 % \| 75 % \| 25 % \|$/m);
});
