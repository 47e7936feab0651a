import { readFileSync } from 'node:fs';

/** Who reads guests. */
export interface ReaderUser {
  readonly uid: number;
  readonly gid: number;
}

/** Linux's overflow user and group, which own nothing: `nobody` and `nogroup` where they have these names. */
export const NOBODY: ReaderUser = { uid: 65_534, gid: 65_534 };
/** The user that the Debian package makes. */
const NAME = 'domsched';

/** @param file with the system's own users, which root alone writes @returns nobody where there is no user for it */
export function readerUser(file = '/etc/passwd'): ReaderUser {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return NOBODY;
  }
  const line = text.split('\n').find((each) => each.startsWith(`${NAME}:`)) ?? '';
  const [, uid, gid] = /^[^:]*:[^:]*:([1-9]\d{0,8}):([1-9]\d{0,8}):/.exec(line) ?? [];
  return uid === undefined ? NOBODY : { uid: Number(uid), gid: Number(gid) };
}
