import process from 'node:process';
import test from 'ava';
import { isMet, measure, median, race } from './harness.ts';

test('median of odd, even and no values', (t) => {
  t.is(median([3, 1, 2]), 2);
  t.is(median([4, 1, 2, 3]), 2.5);
  t.throws(() => median([]), { instanceOf: RangeError });
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
