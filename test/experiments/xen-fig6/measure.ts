import { setTimeout as sleep } from 'node:timers/promises';
import type { XenTestDomain } from '../../live/xen-domain.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { CHECKS, served } from '../fig6/programs.ts';
import { webRoot } from '../fig6/web-root.ts';
import { Dom0Daemon } from '../xen/dom0-daemon.ts';
import { ExperimentXen } from '../xen/xen.ts';
import type { XenFig6Sample } from './judge.ts';

const ROUNDS = { glance: 6, short: 10, full: 60 };
const SECONDS = { glance: 2, short: 4, full: 5 };
/** Until lighttpd has been seen to work, and tripwire is held. */
const WARM_SECONDS = 2;
const CLIENTS = 4;
/** Whose difference is judged, one right after the other in each round. */
const PAIR = ['alone', 'held'] as const;
/** Those are far apart: a few rounds are enough. */
const FAR = { rounds: 6, modes: ['one domain', 'two domains'] } as const;
const FINISH_MS = 300_000;
/** Whoever asks how far tripwire is makes its guest work, and so has it held. */
const LEAVE_ALONE_MS = 10_000;
const KEYS = 'interval = 0.5\nmaxHold = false';
const POLICY =
  '[[policy]]\ntype = "idle-only"\nquiet = 1.5\nselect = [{ domain = "other", comm = "tripwire" }]';

/** Lets tripwire of a domain run, or not: the one that is there, and the next. */
async function tripwire(domain: XenTestDomain, runs: boolean): Promise<void> {
  await domain.run(
    runs ? 'rm -f /run/rest; killall -CONT tripwire; true' : 'touch /run/rest; killall -STOP tripwire; true',
  );
}

/**
 * The client is in the domain itself: there is no network to it. `-S`: it says nothing of deviations, which whoever reads
 * the console would take for trouble.
 */
async function serve(web: XenTestDomain, seconds: number): Promise<{ seconds: number; pages: number }> {
  return served(
    await web.run(`/usr/bin/ab -q -S -t ${seconds} -n 1000000 -c ${CLIENTS} http://127.0.0.1:80/page 2>&1`),
  );
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  const root = await webRoot({ client: true });
  await using machine = await ExperimentXen.boot();
  const options = {
    memory: 320,
    root,
    setup: 'export PATH=/bin:/usr/sbin\nlighttpd -f /etc/lighttpd.conf\ntouch /run/checks',
  };
  const web = await machine.domain({ ...options, name: 'web' });
  const other = await machine.domain({ ...options, name: 'other' });
  for (const domain of [web, other]) {
    await domain.run(CHECKS);
    await tripwire(domain, false);
  }
  await using daemon = await Dom0Daemon.start(machine.xen, KEYS, '', 'attached');
  await daemon.rest();
  for (let round = 0; round < ROUNDS[form]; round++) {
    const pair = round % 2 === 0 ? PAIR : PAIR.toReversed();
    for (const mode of [...pair, ...(round < FAR.rounds ? FAR.modes : [])]) {
      await tripwire(web, mode === 'one domain');
      await tripwire(other, mode === 'two domains' || mode === 'held');
      const from = mode === 'held' ? await daemon.go(POLICY) : undefined;
      await serve(web, WARM_SECONDS);
      if (from !== undefined) await untilHeld(from);
      const { seconds, pages } = await serve(web, SECONDS[form]);
      if (mode === 'held') await daemon.rest();
      put({ round, mode, seconds, pages } satisfies XenFig6Sample);
    }
    say(`round ${round + 1} of ${ROUNDS[form]}`);
  }
  await tripwire(other, true);
  await daemon.go(POLICY);
  const before = await checks();
  for (const end = performance.now() + FINISH_MS; (await checks()) === before; await sleep(LEAVE_ALONE_MS))
    if (performance.now() > end) break;
  const scanned = Number(/(\d+)/.exec(await other.run('tail -n 1 /run/checks'))?.[1] ?? 0);
  put({ finished: (await checks()) - before, scanned });
  await daemon.end();
  await machine.check();
  return machine.used(
    `web and other: Debian's lighttpd and tripwire; ab with ${CLIENTS} clients in web itself, over loopback`,
  );

  async function checks(): Promise<number> {
    return Number(await other.run('wc -l </run/checks'));
  }

  /** While somebody is served, who is why tripwire is held. */
  async function untilHeld(from: number): Promise<void> {
    let isHeld = false;
    const held = daemon.held(from).then(() => {
      isHeld = true;
    });
    while (!isHeld) await serve(web, WARM_SECONDS);
    await held;
  }
}
