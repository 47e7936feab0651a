import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { projectDirectory } from '../../../kernels/paths.ts';
import { runtimeDirectory } from '../../../runtime/runtime-directory.ts';
import { domsched } from '../../live/ps-layouts.ts';

const unit = readFileSync(path.join(projectDirectory, 'runtime/daemon/domsched.service'), 'utf8');
const value = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(unit)?.[1];

test('the unit starts commands that there are', async (t) => {
  const commands = [...unit.matchAll(/^Exec\w+=\/usr\/bin\/env domsched (.+)$/gm)].map(([, line]) => line!);
  t.is(commands.length, 3);
  for (const line of commands) {
    const { stdout } = await domsched([...line.split(' '), '--help']);
    t.true(stdout.startsWith(`Usage: domsched ${line.split(' ')[0]} `), line);
  }
});

test('what the daemon keeps lies in the directory that the unit keeps', (t) => {
  t.is(value('RuntimeDirectoryPreserve'), 'yes');
  t.is(path.join('/run', value('RuntimeDirectory')!), runtimeDirectory({}));
});
