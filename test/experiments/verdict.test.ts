import test from 'ava';
import { atLeast, atMost, countAtMost, onWhat, shown } from './verdict.ts';

test('only an interval on one side of the limit decides', (t) => {
  const judge = (from: number, value: number, to: number) =>
    atMost('it is small', 1, { from, value, to }, 's', 'as told');
  t.like(judge(0.2, 0.4, 1), { outcome: 'met', because: 'as told' });
  t.like(judge(1.01, 1.4, 2), { outcome: 'missed' });
  t.like(judge(0.9, 0.95, 1.01), { outcome: 'cannot be told here', found: '0.95 s (0.90 to 1.01)' });
  t.regex(judge(1, 1.2, 2).because, /limit inside.*as told/);
});

test('at least is judged likewise, from the other side', (t) => {
  const judge = (from: number, to: number) =>
    atLeast('it is much', 0.8, { from, value: from, to }, '', 'as told');
  t.like(judge(0.8, 0.9), { outcome: 'met', because: 'as told' });
  t.like(judge(0.5, 0.79), { outcome: 'missed' });
  t.like(judge(0.7, 0.9), { outcome: 'cannot be told here' });
});

test('what was counted needs no interval', (t) => {
  t.like(countAtMost('none', 0, 0, 'of 9', ''), { outcome: 'met', found: '0 of 9' });
  t.like(countAtMost('none', 0, 1, 'of 9', ''), { outcome: 'missed', found: '1 of 9' });
});

test('figures have about three digits, and each verdict says what ran the guests', (t) => {
  t.is(shown({ value: 1234.5, from: 12.345, to: 0.1234 }), '1235 (12.3 to 0.12)');
  const machine = { cpu: '', cpus: 2, memoryMiB: 1, kernel: '' };
  t.regex(onWhat({ accelerator: 'tcg', machine }), /TCG.*no KVM.*2 CPUs/);
  t.regex(onWhat({ accelerator: 'kvm', machine }), /^KVM;/);
});
