import { readFileSync } from 'node:fs';
import test from 'ava';
import { execa } from 'execa';

/** For one command on a slow, busy machine. */
const LIMIT_MS = 900_000;
const root = new URL('..', import.meta.url).pathname;
const documents = ['README.md', 'CONTRIBUTING.md'].map((file) =>
  readFileSync(new URL(`../${file}`, import.meta.url), 'utf8'),
);

/** Lines of the `sh` blocks of both documents: what a stranger would type. */
function commands(): string[] {
  const blocks = documents.flatMap((text) =>
    [...text.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block]) => block!),
  );
  return blocks.flatMap((block) => block.split('\n').filter((line) => line !== '' && !line.startsWith('#')));
}

/** `.ci/run` runs these itself, in a checkout with nothing in it: here they would find all that was made since. */
const BY_CI = ['make demo', 'make test'];

test('the two commands that do all the set-up are run by CI, first of all and in their order', (t) => {
  const script = readFileSync(new URL('../.ci/run', import.meta.url), 'utf8');
  const run = script.split('\n').filter((line) => !line.startsWith('#') && /\bmake\b/.test(line));
  t.true(run[0]?.includes(BY_CI.join(' && ')), run[0]);
  t.deepEqual(
    commands().filter((command) => /^make (demo|test)$/.test(command)),
    BY_CI,
  );
});

// In the README's order: a later command may use what an earlier one made.
for (const [index, command] of commands().entries()) {
  if (BY_CI.includes(command)) continue;
  test.serial(`${index + 1}: ${command}`, async (t) => {
    t.timeout(LIMIT_MS + 60_000);
    const result = await execa('bash', ['-c', command], {
      cwd: root,
      reject: false,
      all: true,
      timeout: LIMIT_MS,
    });
    t.is(result.exitCode, 0, result.all);
  });
}
