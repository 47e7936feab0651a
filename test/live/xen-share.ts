import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import type { XenMachine } from './xen-machine.ts';
import type { XenRemote } from './xen-remote.ts';

const WINDOW_MS = 8_000;
const WINDOWS = 6;

/** CPU time in seconds that domains had in a window of so many seconds, by Xen's own account. */
interface Used {
  readonly seconds: number;
  readonly [domain: string]: number;
}

/**
 * Gives `web` more and less with the commands, and holds what Xen then counts for it against what `mail` gets. Both
 * have to have more to do than there is time, and all else little.
 */
export async function enforces(
  t: ExecutionContext,
  xen: XenMachine,
  remote: XenRemote,
  scheduler: 'credit' | 'credit2',
): Promise<void> {
  const set = async (command: string): Promise<unknown> => {
    const [entry] = await remote.json<unknown[]>(...command.split(' '));
    return entry;
  };
  const ratio = ({ web, mail }: Used) => web! / mail!;
  const share = ({ web, seconds }: Used) => web! / seconds;
  const expect = async (what: string, holds: (used: Used) => boolean) => {
    const used = await measureUntil(xen, holds);
    t.true(holds(used), `${what}: ${JSON.stringify(used)}`);
    t.log(
      `${what}: web ${used.web!.toFixed(1)}, mail ${used.mail!.toFixed(1)} of ${used.seconds.toFixed(1)} s`,
    );
  };
  t.like(await set('weight web'), { domain: 'web', scheduler, weight: 256, cap: 0 });
  await expect('equal weights', (used) => Math.abs(ratio(used) - 1) < 0.25);
  t.like(await set('weight web 768'), { weight: 768, cap: 0, before: { weight: 256, cap: 0 } });
  await expect('weights 768 and 256', (used) => Math.abs(ratio(used) - 3) < 0.75);
  t.like(await set('cap web 20'), { weight: 768, cap: 20 });
  await expect('cap of 20 %', (used) => share(used) < 0.25 && share(used) > 0.1);
  await set('cap web 0');
  t.like(await set('weight web 256'), { weight: 256, cap: 0 });
}

/**
 * Measures what CPU time domains get, window after window until the figures are as expected: a new weight or cap
 * holds after a moment, and other work on the machine may spoil a window.
 * @returns the last window
 */
async function measureUntil(xen: XenMachine, holds: (used: Used) => boolean): Promise<Used> {
  let before = await account(xen);
  for (let window = 1; ; window++) {
    await sleep(WINDOW_MS);
    const after = await account(xen);
    const used = Object.fromEntries(Object.keys(after).map((key) => [key, after[key]! - (before[key] ?? 0)]));
    if (holds(used as unknown as Used) || window === WINDOWS) return used as unknown as Used;
    before = after;
  }
}

async function account(xen: XenMachine): Promise<Used> {
  const [uptime, ...lines] = (await xen.must('cut -d" " -f1 /proc/uptime; xl list')).trim().split('\n');
  const used: Record<string, number> & { seconds: number } = { seconds: Number(uptime) };
  for (const line of lines.slice(1)) {
    const columns = line.split(/\s+/);
    used[columns[0]!] = Number(columns.at(-1));
  }
  return used;
}
