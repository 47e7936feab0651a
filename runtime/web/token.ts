import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { DomschedError } from '../error.ts';
import { readSecret } from '../secret-file.ts';
import { shellWord } from '../shell-word.ts';

/** A token of this many letters and digits cannot be guessed. */
const SHORTEST_TOKEN = 22;
const COOKIE = 'domsched';

/** Message for a client without the token. */
export const TOKEN_NEEDED =
  'This needs the token out of tokenFile: as the header "Authorization: Bearer …", or once as /?token=… in a browser.';

/**
 * Reads the token that a request over TCP must carry.
 * @throws DomschedError `config-invalid` for a file that others may read or write, or that contains no token
 */
export function readToken(file: string): string {
  const text = readSecret('tokenFile', file, TO_MAKE_ONE(file));
  if (/^[\x21-\x7e]+$/.test(text) && text.length >= SHORTEST_TOKEN) return text;
  const why = `needs one line of ${SHORTEST_TOKEN} printable characters or more; ${TO_MAKE_ONE(file)}`;
  throw new DomschedError('config-invalid', `tokenFile ${file} ${why}`, { file });
}

const TO_MAKE_ONE = (file: string) =>
  `(umask 077; head -c 32 /dev/urandom | base64 > ${shellWord(file)}) makes one`;

/** Checks whether a request carries the token, as a header or as the cookie that replaced it. */
export class Token {
  readonly #digest: Buffer;
  /** Value of the cookie: valid as long as the token, also after a restart, and does not reveal it. */
  readonly #session: string;

  constructor(token: string) {
    this.#digest = digest(token);
    this.#session = createHmac('sha256', token).update('domsched session').digest('base64url');
  }

  isBrought({ headers }: IncomingMessage): boolean {
    const bearer = /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1];
    if (bearer !== undefined && this.#is(bearer)) return true;
    const cookies = (headers.cookie ?? '').split(/; */).map((cookie) => cookie.split('='));
    return cookies.some(
      ([name, value]) => name === COOKIE && value !== undefined && isSame(value, this.#session),
    );
  }

  /** The cookie for a client that has the token; undefined for others. */
  cookieFor(token: string | null): string | undefined {
    if (token === null || !this.#is(token)) return undefined;
    return `${COOKIE}=${this.#session}; HttpOnly; SameSite=Strict; Path=/`;
  }

  #is(token: string): boolean {
    return timingSafeEqual(digest(token), this.#digest);
  }
}

function isSame(a: string, b: string): boolean {
  return timingSafeEqual(digest(a), digest(b));
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
