/** What the paper's two programs do, and how its client is understood. */
import { PAGE_BYTES } from './web-root.ts';

/** tripwire, over and over; what it finds has to be nothing. */
export const CHECKS = [
  '(while :; do while [ -e /run/rest ]; do sleep 0.1; done',
  'tripwire --check -c /etc/tripwire/tw.cfg >/tmp/report || echo "WORKLOAD ERROR tripwire" >/dev/console',
  "grep 'Total objects scanned' /tmp/report >>/run/checks; done) </dev/null >/dev/null 2>&1 &",
].join('; ');

/** @param text that `ab` printed @returns pages that were served, each of them whole, in what time @throws Error if not */
export function served(text: string): { seconds: number; pages: number } {
  const figure = (name: string) => Number(new RegExp(`^${name}: +([\\d.]+)`, 'm').exec(text)?.[1]);
  if (figure('Document Length') !== PAGE_BYTES || figure('Failed requests') > 0 || /Non-2xx/.test(text))
    throw new Error(`lighttpd does not serve what it is to: ${text}`);
  return { seconds: figure('Time taken for tests'), pages: figure('Complete requests') };
}
