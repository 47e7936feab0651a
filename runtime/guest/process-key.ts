import { createHmac, randomBytes } from 'node:crypto';

/** Of this run of the program: nobody who has a key can tell what it was made of, or make one. */
const secret = randomBytes(32);
const KEY_BYTES = 12;

/**
 * A name for one process of one guest that differs from every other's, dead ones included, and says nothing: whoever
 * sees a tick learns no kernel address. It counts for as long as this program runs.
 * @param domain id of the domain, which the key begins with
 * @param boot tells this boot of the domain from its others; empty where nobody has to
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
