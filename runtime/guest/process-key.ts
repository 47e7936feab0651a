import { createHmac, randomBytes } from 'node:crypto';

/** Random for each run of the program: a key does not reveal what it was made from, and nobody else can make one. */
const secret = randomBytes(32);
const KEY_BYTES = 12;

/**
 * A name for one process of one guest. It differs from that of every other process, dead ones included, and reveals
 * nothing: a tick shows no kernel address. It is valid as long as this program runs.
 * @param domain id of the domain, which the key begins with
 * @param boot tells this boot of the domain from its others; may be empty if nobody needs that
 */
export function processKey(
  domain: string,
  boot: string,
  process: { readonly pid: number; readonly address: bigint; readonly startTimeNs: number },
): string {
  const identity = JSON.stringify([
    domain,
    boot,
    process.pid,
    process.address.toString(16),
    process.startTimeNs,
  ]);
  const digest = createHmac('sha256', secret).update(identity).digest().subarray(0, KEY_BYTES);
  return `${domain}@${digest.toString('base64url')}`;
}
