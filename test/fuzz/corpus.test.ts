/** Every reader of foreign bytes on its kept inputs: a bug that a fuzzer found once does not come back. */
import test from 'ava';
import { kept, loadTarget, targetNames } from './corpus.ts';
import { outcomeOf } from './target.ts';

for (const name of targetNames) {
  test(`${name}: its seeds are read, what a fuzzer made of them is read or refused`, async (t) => {
    const target = await loadTarget(name);
    const seeds = await target.seeds();
    const outcomes: string[] = [];
    for (const bytes of seeds) outcomes.push(await outcomeOf(target, bytes));
    t.true(outcomes.includes('read'), `of the seeds: ${outcomes.join(', ')}`);

    const inputs = kept(name);
    t.true(inputs.length > 0, `run \`make fuzz TARGET=${name} KEEP=1\``);
    for (const { file, bytes } of inputs) {
      // What is thrown here is the finding; the file says with which input.
      const outcome = await outcomeOf(target, bytes).catch((error: unknown) => {
        throw new Error(`test/fuzz/corpus/${name}/${file}`, { cause: error });
      });
      outcomes.push(outcome);
    }
    t.true(new Set(outcomes).size > 1, 'nothing was refused');
  });
}
