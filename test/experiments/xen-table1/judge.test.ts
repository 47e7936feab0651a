import test from 'ava';
import { SOME_SETUP } from '../some-setup.ts';
import { judge, ratios, type XenTable1Sample } from './judge.ts';

function sample(
  way: XenTable1Sample['way'],
  turn: number,
  pauseUs: number,
  translateUs: number,
): XenTable1Sample {
  return { way, turn, pauseUs, translateUs, mapUs: 0, wordUs: 0 };
}

test('both ways are compared within a turn, each by its median', (t) => {
  const samples = [
    ...[1, 2, 30].map((us) => sample('ours', 0, us, 0)),
    ...[10, 20, 20].map((us) => sample('paper', 0, us, 0)),
    ...[100, 100].map((us) => sample('ours', 1, us, 0)),
    ...[50, 50].map((us) => sample('paper', 1, us, 0)),
  ];
  t.deepEqual(
    ratios(samples, ({ pauseUs }) => pauseUs),
    [0.1, 2],
  );
});

test('a pause of ten times theirs is missed though translation is cheaper, and the verdict says on what', (t) => {
  const turns = [0, 1, 2, 3, 4, 5];
  const samples = turns.flatMap((turn) => [sample('ours', turn, 1000, 100), sample('paper', turn, 100, 400)]);
  const { verdicts } = judge({ ...SOME_SETUP, xen: '4.17' }, samples);
  t.deepEqual(
    verdicts.map(({ outcome }) => outcome),
    ['met', 'met', 'missed', 'missed'],
  );
  for (const { because } of verdicts) t.regex(because, /^Xen in QEMU, translated \(TCG\)/);
});
