import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { execa } from 'execa';
import { parse } from 'smol-toml';
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

test('its exposure by systemd-analyze is less than 3.5 of 10; without its limits it is more than 9', async (t) => {
  const exposure = async (text: string) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'unit-'));
    t.teardown(() => rm(folder, { recursive: true, force: true }));
    const file = path.join(folder, 'domsched.service');
    await writeFile(file, text);
    const { stdout } = await execa('systemd-analyze', ['security', '--offline=true', '--no-pager', file], {
      env: { LC_ALL: 'C' },
    });
    return Number(/Overall exposure level for domsched\.service: ([\d.]+)/.exec(stdout)![1]);
  };
  const limited = await exposure(unit);
  t.log(`exposure: ${limited}`);
  t.true(limited < 3.5, `${limited}`);
  const open = await exposure(
    unit.replace(/^(Cap|No|Protect|Restrict|System|Lock|IP|Device|Key|UMask).*$/gm, ''),
  );
  t.true(open > 9, `${open}`);
});

test('what the configuration proposes to write can be written under the unit', (t) => {
  const toml = readFileSync(path.join(projectDirectory, 'runtime/daemon/domsched.toml'), 'utf8');
  // Examples are comments: a key and its value.
  const files = [...toml.matchAll(/^# ((?:file|listen) = .*)$/gm)].map(
    ([, line]) => Object.values(parse(line!))[0] as string,
  );
  t.true(files.length >= 3);
  const writable = [`/var/log/${value('LogsDirectory')}/`, `unix:/run/${value('RuntimeDirectory')}/`];
  const isAddress = (file: string) => /^[\d.]+:\d+$/.test(file);
  t.deepEqual(
    files.filter((file) => !isAddress(file) && !writable.some((place) => file.startsWith(place))),
    [],
  );
});
