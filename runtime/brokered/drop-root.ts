import { readdirSync, readFileSync } from 'node:fs';
import process from 'node:process';
import koffi from 'koffi';
import { type ReaderUser, readerUser } from '../broker/reader-user.ts';
import { DomschedError } from '../error.ts';

/** From include/uapi/linux/prctl.h. */
const PR_SET_NO_NEW_PRIVS = 38;
const PR_SET_DUMPABLE = 4;

const prctl = koffi
  .load('libc.so.6')
  .func(
    'int prctl(int option, unsigned long second, unsigned long third, unsigned long fourth, unsigned long fifth)',
  );

/**
 * Gives up root, all groups and all capabilities, for all threads and for good. Nobody of the same user can trace us
 * afterwards, nor read our memory.
 * @throws DomschedError `refused` when we are not root, or anything of it is left
 */
export function dropRoot(user: ReaderUser = readerUser()): void {
  if (process.geteuid?.() !== 0) throw refused('it is not run as root');
  try {
    process.setgroups!([]);
    process.setgid!(user.gid);
    process.setuid!(user.uid);
  } catch (error) {
    const unit = 'it takes CAP_SETUID, CAP_SETGID and the calls of @setuid';
    throw refused(`${(error as Error).message}; ${unit}`);
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) !== 0) {
    throw refused(`prctl: error ${koffi.errno()}`);
  }
  for (const thread of readdirSync('/proc/self/task')) {
    const left = leftOf(readFileSync(`/proc/self/task/${thread}/status`, 'latin1'), user);
    if (left !== undefined) throw refused(`thread ${thread} keeps ${left}`);
  }
}

/** What of root a thread has: a line of its status. Undefined if nothing. */
export function leftOf(status: string, { uid, gid }: ReaderUser): string | undefined {
  const lines = status.split('\n');
  const is = (line: string, name: string, value: RegExp) =>
    line.startsWith(`${name}:`) && !value.test(line.slice(name.length + 1).trim());
  const ids = (id: number) => new RegExp(`^${id}(\\s+${id}){3}$`);
  return lines.find(
    (line) =>
      is(line, 'Uid', ids(uid)) ||
      is(line, 'Gid', ids(gid)) ||
      is(line, 'Groups', /^$/) ||
      ['CapInh', 'CapPrm', 'CapEff', 'CapAmb'].some((name) => is(line, name, /^0+$/)),
  );
}

function refused(why: string): DomschedError {
  return new DomschedError('refused', `the reader cannot give up root: ${why}`, {});
}
