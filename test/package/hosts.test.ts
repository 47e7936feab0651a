/** What docs/hosts/ has people type: every command of ours is one, whatever machines there are. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../kernels/paths.ts';
import { compiledDomsched as domsched } from '../extractor/run-cli.ts';

const folder = path.join(projectDirectory, 'docs', 'hosts');
/** Exit codes: done, or failed for want of that machine; not wrong usage (2). */
const RAN = [0, 1];

for (const page of readdirSync(folder)) {
  test(`${page}: each command that it has people type is taken`, (t) => {
    const text = readFileSync(path.join(folder, page), 'utf8');
    const lines = [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block]) =>
      block!.trim().split('\n'),
    );
    const commands = new Set(lines.filter((line) => line.startsWith('domsched ')));
    t.true(commands.size > 0, 'there are some');
    for (const command of commands) {
      const { code, stderr } = domsched(command.split(' ').slice(1));
      t.true(RAN.includes(code ?? -1), `${command}: ${code} ${stderr}`);
      // A machine of that name is not here; all else is answered.
      const named = / (hold|release|ps) \w/.test(command) || command.includes('pid:');
      const found = named && code === 1 ? /there is no domain|runs no virtual machine|nothing is held/ : /^/;
      t.regex(stderr, found, command);
    }
  });
}
