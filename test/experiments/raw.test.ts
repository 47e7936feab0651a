import test from 'ava';
import type { Setup } from './experiment.ts';
import { formatRaw, parseRaw } from './raw.ts';

const setup: Setup = {
  experiment: 'any',
  form: 'short',
  begun: '2026-01-01T00:00:00.000Z',
  ended: '2026-01-01T00:01:00.000Z',
  commit: 'abc',
  machine: { cpu: 'a CPU', cpus: 2, memoryMiB: 1024, kernel: '6' },
  load: [0.5, 1],
  nice: 0,
  versions: { domsched: '0', node: 'v24', qemu: '7' },
  accelerator: 'tcg',
  guests: ['one'],
};

test('raw data come back as they were, to six digits', (t) => {
  const samples = [{ way: 'ours', us: 0.123456789, count: 123456789 }, { way: 'paper' }];
  const text = formatRaw({ setup, samples });
  t.is(text.split('\n').length, 4);
  t.deepEqual(parseRaw(text), {
    setup,
    samples: [{ way: 'ours', us: 0.123457, count: 123456789 }, { way: 'paper' }],
  });
});

test('a file that does not say where it is from is refused', (t) => {
  t.throws(() => parseRaw(''));
  t.throws(() => parseRaw('{"experiment":"any"}\n{"us":1}\n'), { name: 'ZodError' });
});
