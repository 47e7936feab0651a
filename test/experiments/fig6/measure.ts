import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { requireKernel } from '../../../kernels/cache.ts';
import { cpuOf } from '../../bench/cpu-of.ts';
import { bootDebian, type LiveGuest } from '../../live/guest.ts';
import { freePort } from '../../runtime/free-port.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { pin } from '../pin.ts';
import { TurnDaemon } from '../turn-daemon.ts';
import type { Fig6Sample } from './judge.ts';
import { CHECKS, served } from './programs.ts';
import { webRoot } from './web-root.ts';

const ROUNDS = { glance: 6, short: 24, full: 240 };
const SECONDS = { glance: 1, short: 3, full: 5 };
/** Until lighttpd has been seen to work, and then until tripwire is held. */
const WARM_SECONDS = 1;
const MOST_WARM = 60;
const CLIENTS = 4;
/** Whose difference is judged, one right after the other in each round. */
const PAIR = ['alone', 'held'] as const;
/** Those are far apart: a few rounds are enough. */
const FAR = { rounds: 6, modes: ['one domain', 'two domains'] } as const;
/** The domains share a CPU of the host; the client and the daemon have the other one. */
const [OTHERS, DOMAINS] = [0, 1];
const FINISH_MS = 300_000;
/** Whoever asks how far tripwire is makes its guest work, and so has it held. */
const LEAVE_ALONE_MS = 10_000;
const POLICY =
  '[[policy]]\ntype = "idle-only"\nquiet = 1.5\nselect = [{ domain = "other", comm = "tripwire" }]';

/** @returns pages that were served, each of them whole, in what time */
async function serve(port: number, seconds: number): Promise<{ seconds: number; pages: number }> {
  const { stdout } = await execa('taskset', [
    ...[
      '--cpu-list',
      String(OTHERS),
      'ab',
      '-q',
      '-t',
      String(seconds),
      '-n',
      '1000000',
      '-c',
      String(CLIENTS),
    ],
    `http://127.0.0.1:${port}/page`,
  ]);
  return served(stdout);
}

async function boot(name: string, port: number | undefined, root: string) {
  const forward = port === undefined ? '' : `,hostfwd=tcp:127.0.0.1:${port}-:80`;
  const machine = await bootDebian({
    name,
    cpus: 1,
    memory: 512,
    root,
    network: true,
    shellNice: -10,
    setup: [
      'export PATH=/bin:/usr/sbin',
      'ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up',
      'lighttpd -f /etc/lighttpd.conf',
      'touch /run/checks',
    ].join('\n'),
    extra: ['-netdev', `user,id=network${forward}`, '-device', 'virtio-net-pci,netdev=network'],
  });
  await pin(machine.process.pid!, DOMAINS);
  await machine.run(CHECKS);
  return machine;
}

/** Lets tripwire of a domain run, or not: the one that is there, and the next. */
async function tripwire(machine: LiveGuest, runs: boolean): Promise<void> {
  await machine.run(
    runs ? 'rm -f /run/rest; killall -CONT tripwire; true' : 'touch /run/rest; killall -STOP tripwire; true',
  );
}

async function checks(machine: LiveGuest): Promise<number> {
  return Number(await machine.run('wc -l </run/checks'));
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  const root = await webRoot();
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fig6-'));
  await using _remove = { [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
  const port = await freePort();
  await using web = await boot('web', port, root);
  await using other = await boot('other', undefined, root);
  await using daemon = await TurnDaemon.start(
    directory,
    [web, other],
    requireKernel('debian-6.1-cloud').vmlinux,
    'interval = 0.5\nmaxHold = false',
  );
  await pin(daemon.pid, OTHERS);
  for (let round = 0; round < ROUNDS[form]; round++) {
    const pair = round % 2 === 0 ? PAIR : PAIR.toReversed();
    for (const mode of [...pair, ...(round < FAR.rounds ? FAR.modes : [])]) {
      await tripwire(web, mode === 'one domain');
      await tripwire(other, mode === 'two domains' || mode === 'held');
      if (mode === 'held') await daemon.go(POLICY);
      await serve(port, WARM_SECONDS);
      if (mode === 'held') await untilHeld();
      const from = domainsCpu();
      const { seconds, pages } = await serve(port, SECONDS[form]);
      const to = domainsCpu();
      if (mode === 'held') await daemon.rest();
      put({
        round,
        mode,
        seconds,
        pages,
        webMs: to.web - from.web,
        otherMs: to.other - from.other,
      } satisfies Fig6Sample);
    }
    say(`round ${round + 1} of ${ROUNDS[form]}`);
  }
  await tripwire(other, true);
  await daemon.go(POLICY);
  const before = await checks(other);
  for (
    const end = performance.now() + FINISH_MS;
    (await checks(other)) === before;
    await sleep(LEAVE_ALONE_MS)
  )
    if (performance.now() > end) break;
  put({ finished: (await checks(other)) - before, scanned: await scanned(other) });
  await daemon.rest();
  for (const machine of [web, other]) machine.checkConsole();
  return {
    accelerator: web.accelerator,
    guests: [
      `web and other: Debian ${web.kernel.release}, 1 vCPU each, both on one CPU of the host, with Debian's lighttpd and tripwire; ab with ${CLIENTS} clients on the other CPU`,
    ],
  };

  /** While somebody is served, who is why tripwire is held. */
  async function untilHeld(): Promise<void> {
    for (let i = 0; !daemon.hasHeld(other); i++) {
      if (i === MOST_WARM) throw new Error('tripwire is not held');
      await serve(port, WARM_SECONDS);
    }
  }

  function domainsCpu() {
    return { web: cpuOf(web.process.pid!), other: cpuOf(other.process.pid!) };
  }
}

async function scanned(machine: LiveGuest): Promise<number> {
  return Number(/(\d+)/.exec(await machine.run('tail -n 1 /run/checks'))?.[1] ?? 0);
}
