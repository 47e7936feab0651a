import process from 'node:process';
import test from 'ava';
import { isMet, measure, median, percentile, race } from './harness.ts';
import { delaysOf, Runs } from './runs.ts';

test('median of odd, even and no values', (t) => {
  t.is(median([3, 1, 2]), 2);
  t.is(median([4, 1, 2, 3]), 2.5);
  t.throws(() => median([]), { instanceOf: RangeError });
});

test('a percentile is a value that there was', (t) => {
  const values = [50, 10, 40, 20, 30];
  t.is(percentile(values, 0.5), 30);
  t.is(percentile(values, 0.9), 50);
  t.is(percentile(values, 0), 10);
  t.throws(() => percentile([], 0.5), { instanceOf: RangeError });
});

test('a delay is from the start of one run to the last count of another before the first ends', (t) => {
  const [service, backup] = [new Runs(400, 0n), new Runs(100, 0n)];
  let counted = 0n;
  const count = (runs: Runs, fromMs: number, toMs: number) => {
    for (let ms = fromMs; ms <= toMs; ms += 10) runs.look(++counted, ms);
  };
  // Stops after 300 ms, stumbling for 90 ms before; goes on until the end; had not gone on; the last has not ended.
  for (const start of [1000, 3000, 5000, 7000]) count(service, start, start + 900);
  for (const [from, to] of [
    [500, 1150],
    [1240, 1300],
    [2000, 3880],
    [6000, 7000],
  ] as const) {
    count(backup, from, to);
    backup.look(counted, to + 50);
  }
  t.deepEqual(delaysOf(service.list, backup.list, 100), { delays: [300], late: 1, unfit: 1 });
  t.is(service.list.length, 4);
  t.is(Math.max(...backup.steps), 90);
});

test('a target is met up to its limit', (t) => {
  t.true(isMet({ claim: 'x', limit: 2, found: 2, unit: '' }));
  t.false(isMet({ claim: 'x', limit: 2, found: 2.01, unit: '' }));
});

test("peak memory is the command's, and includes its children, not the measuring process", async (t) => {
  const allocate = (mebibytes: number) => `Buffer.alloc(${mebibytes} << 20, 1)`;
  const small = await measure({ command: ['true'] });
  const large = await measure({ command: [process.execPath, '-e', allocate(200)] });
  const child = await measure({ command: ['sh', '-c', `"${process.execPath}" -e '${allocate(200)}'; true`] });
  t.true(small.memory < 10 << 20, `${small.memory}`);
  t.true(large.memory > 200 << 20, `${large.memory}`);
  t.true(child.memory > 200 << 20, `${child.memory}`);
});

test('a command that fails is no sample', async (t) => {
  await t.throwsAsync(measure({ command: ['false'] }));
});

test('contestants take turns, the first round does not count, and each run is tidied up', async (t) => {
  const order: string[] = [];
  const contestant = (name: string) => ({
    name,
    command: ['true'] as const,
    after: async () => void order.push(name),
  });
  const results = await race([contestant('a'), contestant('b')], { rounds: 2 });
  t.deepEqual(order, ['a', 'b', 'a', 'b', 'a', 'b']);
  t.deepEqual(
    results.map(({ name, samples }) => [name, samples.length]),
    [
      ['a', 2],
      ['b', 2],
    ],
  );
});
