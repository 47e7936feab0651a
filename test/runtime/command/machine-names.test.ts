import { truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { scratchFolder } from '../../extractor/fixture.ts';
import { compiledDomsched } from '../../extractor/run-cli.ts';

/** Each makes a terminal do something: clears it, sets its title, turns the direction of writing. */
const NAME = 'vm\x1b[2J\x1b]0;mine\x07\u202e\u009b1m';

test('a machine whose name is full of commands to the terminal: none comes out of any command', (t) => {
  const file = path.join(scratchFolder(t), NAME);
  writeFileSync(file, '');
  truncateSync(file, 1 << 20);
  for (const args of [
    ['hold', NAME, 'backup'],
    ['release', NAME, 'backup'],
    ['renice', NAME, 'backup', '5'],
    ['weight', NAME],
    ['cap', NAME],
    ['ps'],
    ['domains'],
    ['hold', `${NAME}x`, 'backup'],
  ]) {
    const { stdout, stderr } = compiledDomsched([...args, '--connect', `dump:${file}`]);
    const said = stdout + stderr;
    t.regex(said, /vm\\x1b\[2J/, args.join(' '));
    t.notRegex(said, /[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/, JSON.stringify(said));
  }
});
