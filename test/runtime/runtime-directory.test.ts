import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { makePrivate, runtimeDirectory, writePrivate } from '../../runtime/runtime-directory.ts';

function scratch(t: ExecutionContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'domsched-private-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test('a folder is made for us alone, and taken again', (t) => {
  const directory = path.join(scratch(t), 'domsched', 'pauses');
  makePrivate(directory);
  makePrivate(directory);
  const file = path.join(directory, 'mark');
  writePrivate(file, 'longer');
  writePrivate(file, 'short');
  t.is(readFileSync(file, 'utf8'), 'short');
});

test('what others may write to, in which they may put another one, or a link: refused', (t) => {
  const open = path.join(scratch(t), 'open');
  mkdirSync(open);
  chmodSync(open, 0o777);
  t.throws(() => makePrivate(open), { code: 'refused', message: /DOMSCHED_RUNTIME_DIR/ });
  const inside = path.join(open, 'ours');
  t.throws(() => makePrivate(inside), { code: 'refused' });
  const place = scratch(t);
  symlinkSync(path.join(place, 'else'), path.join(place, 'link'));
  mkdirSync(path.join(place, 'else'));
  t.throws(() => makePrivate(path.join(place, 'link')), { code: 'refused' });
});

test('a link in the place of a file is not followed', (t) => {
  const place = scratch(t);
  const victim = path.join(place, 'victim');
  writeFileSync(victim, 'precious');
  symlinkSync(victim, path.join(place, 'mark'));
  t.throws(() => writePrivate(path.join(place, 'mark'), 'x'), { code: 'ELOOP' });
  t.is(readFileSync(victim, 'utf8'), 'precious');
});

test('without a place of its own a user has none below /tmp', (t) => {
  t.is(runtimeDirectory({ DOMSCHED_RUNTIME_DIR: '/a/b' }), '/a/b');
  const { getuid } = process;
  t.teardown(() => {
    process.getuid = getuid!;
  });
  process.getuid = () => 0;
  t.is(runtimeDirectory({ XDG_RUNTIME_DIR: '/run/user/7' }), '/run/domsched');
  process.getuid = () => 4_000_000_000;
  t.false(existsSync('/run/user/4000000000'));
  t.is(runtimeDirectory({}), '/run/domsched');
  t.is(runtimeDirectory({ XDG_RUNTIME_DIR: '/run/user/7' }), '/run/user/7/domsched');
});
