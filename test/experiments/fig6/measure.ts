import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa } from 'execa';
import { requireKernel } from '../../../kernels/cache.ts';
import { DaemonProcess } from '../../live/daemon-process.ts';
import { bootDebian, type LiveGuest } from '../../live/guest.ts';
import { freePort } from '../../live/page.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { pin } from '../pin.ts';
import type { Fig6Sample } from './judge.ts';
import { PAGE_BYTES, webRoot } from './web-root.ts';

const ROUNDS = { glance: 6, short: 10, full: 100 };
const SECONDS = { glance: 1, short: 3, full: 10 };
/** Until lighttpd has been seen to work, and tripwire is held. */
const WARM_SECONDS = 2;
const CLIENTS = 4;
const MODES = ['alone', 'one domain', 'two domains', 'held'] as const;
/** The domains share a CPU of the host; the client and the daemon have the other one. */
const [OTHERS, DOMAINS] = [0, 1];
/** tripwire, over and over; what it finds has to be nothing. */
const CHECKS = [
  '(while :; do while [ -e /run/rest ]; do sleep 0.1; done',
  'tripwire --check -c /etc/tripwire/tw.cfg >/tmp/report || echo "WORKLOAD ERROR tripwire" >/dev/console',
  "grep 'Total objects scanned' /tmp/report >>/run/checks; done) </dev/null >/dev/null 2>&1 &",
].join('; ');
const FINISH_MS = 300_000;

/** @returns requests that were answered, each with the whole page, in a second */
async function serve(port: number, seconds: number): Promise<number> {
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
  const figure = (name: string) => Number(new RegExp(`^${name}: +([\\d.]+)`, 'm').exec(stdout)?.[1]);
  if (figure('Document Length') !== PAGE_BYTES || figure('Failed requests') > 0 || /Non-2xx/.test(stdout))
    throw new Error(`lighttpd does not serve what it is to: ${stdout}`);
  return figure('Requests per second');
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
  await using daemon = new DaemonProcess(directory, [web.connection, other.connection]);
  process.once('exit', () => {
    if (daemon.pid !== undefined) process.kill(daemon.pid);
  });
  await daemon.extract(requireKernel('debian-6.1-cloud').vmlinux);
  await daemon.configure(
    '[[policy]]\ntype = "idle-only"\nquiet = 1.5\nselect = [{ comm = "tripwire" }]',
    'interval = 0.5\nmaxHold = false',
  );
  for (let round = 0; round < ROUNDS[form]; round++) {
    for (const mode of round % 2 === 0 ? MODES : MODES.toReversed()) {
      await tripwire(web, mode === 'one domain');
      await tripwire(other, mode === 'two domains' || mode === 'held');
      const begun = daemon.logged();
      if (mode === 'held') {
        await pin(daemon.start().pid!, OTHERS);
        await daemon.logs(({ msg }) => msg === 'attached', begun);
      }
      await serve(port, WARM_SECONDS);
      const perSecond = await serve(port, SECONDS[form]);
      if (mode === 'held') {
        await daemon.logs(({ msg }) => msg === 'holding', begun);
        await daemon.end('SIGTERM');
      }
      put({ round, mode, perSecond } satisfies Fig6Sample);
    }
    say(`round ${round + 1} of ${ROUNDS[form]}`);
  }
  await tripwire(other, true);
  daemon.start();
  const before = await checks(other);
  for (const end = performance.now() + FINISH_MS; (await checks(other)) === before; await sleep(500))
    if (performance.now() > end) break;
  put({ finished: (await checks(other)) - before, scanned: await scanned(other) });
  await daemon.end('SIGTERM');
  for (const machine of [web, other]) machine.checkConsole();
  return {
    accelerator: web.accelerator,
    guests: [
      `web and other: Debian ${web.kernel.release}, 1 vCPU each, both on one CPU of the host, with Debian's lighttpd and tripwire; ab with ${CLIENTS} clients on the other CPU`,
    ],
  };
}

async function scanned(machine: LiveGuest): Promise<number> {
  return Number(/(\d+)/.exec(await machine.run('tail -n 1 /run/checks'))?.[1] ?? 0);
}
