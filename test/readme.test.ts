import { readFileSync } from 'node:fs';
import test from 'ava';
import { execa } from 'execa';

const root = new URL('..', import.meta.url).pathname;
const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

/** Lines of the README's `sh` blocks: what a stranger would type. */
function commands(): string[] {
  const blocks = [...readme.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map((match) => match[1]!);
  return blocks.flatMap((block) => block.split('\n').filter((line) => line !== '' && !line.startsWith('#')));
}

test('the README has the two commands that do all the set-up', (t) => {
  t.true(commands().includes('make demo'));
  t.true(commands().includes('make test'));
});

// In the README's order: a later command may use what an earlier one made.
test.serial('every command in the README works', async (t) => {
  for (const command of commands()) {
    if (command === 'make test') {
      t.log('make test: not run from within itself');
      continue;
    }
    const result = await execa('bash', ['-c', command], {
      cwd: root,
      reject: false,
      all: true,
      timeout: 540_000,
    });
    t.is(result.exitCode, 0, `${command}\n${result.all}`);
  }
});
