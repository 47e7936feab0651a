import test from 'ava';
import { holdParts, PARTS } from './hold-parts.ts';
import type { DaemonMark } from './marked-daemon.ts';

/** A hold: somebody runs from 1000 on, the other one until 1014; the tick of 1008 has it held. */
const marks: DaemonMark[] = [
  { what: 'sees', ms: 900 },
  { what: 'sees', ms: 1003 },
  { what: 'sees', ms: 1005 },
  { what: 'decided', ms: 1009, early: true },
  { what: 'ticks', ms: 1005.5 },
  { what: 'holds', ms: 1007 },
  { what: 'pauses', ms: 1008 },
  { what: 'paused', ms: 1015 },
  { what: 'proves', ms: 1017 },
  { what: 'proved', ms: 1018 },
  { what: 'written', ms: 1018.5 },
  { what: 'proves', ms: 1019 },
  { what: 'proved', ms: 1019.5 },
  { what: 'resumes', ms: 1020 },
  { what: 'resumed', ms: 1022 },
  { what: 'pauses', ms: 1024 },
  { what: 'done', ms: 1026 },
  { what: 'pauses', ms: 1028 },
];
const causes = [
  { fromMs: 1000, toMs: 2000 },
  { fromMs: 3000, toMs: 4000 },
];

test('the parts of a hold follow each other, and the time until the process is off is told beside them', (t) => {
  const [parts, ...others] = holdParts(causes, [{ fromMs: 100, toMs: 1014 }], marks, 100);
  t.is(others.length, 0);
  t.is(parts!.all, 14);
  t.is(parts!['off, from when the pause is asked for'], 6);
  t.is(parts!.pauses, 2, 'what comes after its end is another edit’s');
  const follow = PARTS.slice(0, PARTS.indexOf('resume') + 1);
  t.is(
    follow.reduce((sum, name) => sum + parts![name], 0),
    22,
  );
  t.is(parts!['until seen twice'], 2);
  t.is(parts!['second proof'], 1.5);
});

test('a tick that came by itself, and a process that did not run or went on, tell nothing', (t) => {
  const own = marks.map((mark) => (mark.what === 'decided' ? { ...mark, early: false } : mark));
  t.deepEqual(holdParts(causes, [{ fromMs: 100, toMs: 1014 }], own, 100), []);
  t.deepEqual(holdParts(causes, [{ fromMs: 100, toMs: 800 }], marks, 100), []);
  t.deepEqual(holdParts(causes, [{ fromMs: 100, toMs: 1950 }], marks, 100), []);
});
