import { spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import test from 'ava';
import { isOf } from '../../../runtime/broker/machines.ts';
import { NOBODY } from '../../../runtime/broker/reader-user.ts';

const users: readonly [string, { uid?: number; gid?: number }, boolean][] = [
  ['root', {}, false],
  ['another', { uid: 12_345, gid: 12_345 }, false],
  ['one whose number begins so', { uid: 655_340, gid: 655_340 }, false],
  ['nobody', { uid: NOBODY.uid, gid: 12_345 }, true],
  ['of the group nogroup', { uid: 12_345, gid: NOBODY.gid }, true],
];
for (const [who, ids, expected] of users) {
  test(`whether a machine is the reader's own: ${who}`, async (t) => {
    t.is(process.getuid?.(), 0, 'this test is for root');
    const child = spawn('sleep', ['60'], ids);
    t.teardown(() => child.kill('SIGKILL'));
    await once(child, 'spawn');
    t.is(isOf(child.pid!, NOBODY), expected);
  });
}
