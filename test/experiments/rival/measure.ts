import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { requireKernel } from '../../../kernels/cache.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { QemuDomain } from '../../../runtime/hypervisor/qemu/domain.ts';
import { membersOf } from '../../../runtime/layout/members.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { advance } from '../../../runtime/memory/address.ts';
import { cpuOf } from '../../bench/cpu-of.ts';
import { findProcess } from '../../live/cycles.ts';
import { bootDebian, type LiveGuest } from '../../live/guest.ts';
import { guestBinary } from '../../live/initramfs.ts';
import { until } from '../../live/until.ts';
import type { Measuring, UsedMachines } from '../experiment.ts';
import { lookOn, MemoryWords, type SeenProcess, type SeenStretch } from '../fig8/look-on.ts';
import { PaperWay } from '../paper-way.ts';
import { TurnDaemon } from '../turn-daemon.ts';
import { CoordinatorProcess } from './coordinator-process.ts';
import { type Contender, DAEMON_MS, type RivalCost } from './judge.ts';

const ROUNDS = { glance: 6, short: 6, full: 30 };
const SECONDS = { glance: 3, short: 11, full: 15 };
const CONTENDERS: Readonly<Record<Measuring['form'], readonly Contender[]>> = {
  glance: [
    { way: 'domsched', intervalMs: DAEMON_MS },
    { way: 'rival', intervalMs: DAEMON_MS },
  ],
  short: [
    { way: 'domsched', intervalMs: DAEMON_MS },
    ...[DAEMON_MS, 50, 10].map((intervalMs) => ({ way: 'rival' as const, intervalMs })),
  ],
  full: [
    { way: 'domsched', intervalMs: DAEMON_MS },
    ...[DAEMON_MS, 100, 50, 20, 10, 5].map((intervalMs) => ({ way: 'rival' as const, intervalMs })),
  ],
};
const SENTINEL_MS = 5;
/** pi1 computes all the time; each other one rests so many ms, and up to half of it more, and computes so many. */
const U1 = { pi2: { restMs: 4_240, burstMs: 1_200 }, pi3: { restMs: 6_320, burstMs: 900 } };
const U2 = { pi4: { restMs: 2_480, burstMs: 1_300 } };
const SUBJECT = { guest: 'u1', comm: 'pi1' };
const AGENT = 'agent';
/** Where a machine of QEMU's own network finds loopback of the host. */
const HOST = '10.0.2.2';
const WARM_MS = 1_000;
const LIMIT_MS = 120_000;
/** Of the agents, and of domsched's machines alike: both go before the work of their guests. */
const SHELL_NICE = -10;

const POLICY = `[[policy]]\ntype = "idle-only"\nselect = [{ domain = "${SUBJECT.guest}", comm = "${SUBJECT.comm}" }]`;
const KEYS = [
  `interval = ${DAEMON_MS / 1000}\nidleInterval = ${DAEMON_MS / 1000}\nmaxHold = false`,
  `sentinel = ${SENTINEL_MS / 1000}`,
].join('\n');

type Bursts = Readonly<Record<string, { readonly restMs: number; readonly burstMs: number }>>;

async function boot(name: string, burners: readonly string[], bursts: Bursts) {
  const starts = Object.entries(bursts).map(
    ([comm, { restMs, burstMs }]) =>
      `REST_MS=${restMs} BURST_MS=${burstMs} /bin/workload bursts ${comm} </dev/null &`,
  );
  return bootDebian({
    name,
    cpus: 1,
    memory: 256,
    programs: burners.map((burner) => ({ kind: 'burner', name: burner })),
    setup: ['ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up', ...starts].join('\n'),
    network: true,
    shellNice: SHELL_NICE,
    files: { [`bin/${AGENT}`]: await guestBinary(AGENT) },
    extra: ['-netdev', 'user,id=network', '-device', 'virtio-net-pci,netdev=network'],
  });
}

/** Where the guest's kernel says who is on its CPU and who wants it. domsched finds the places, and is away before anything is measured. */
async function seenIn(
  machine: LiveGuest,
  words: MemoryWords,
  names: readonly string[],
): Promise<SeenProcess[]> {
  await using domain = await QemuDomain.attach(machine.sockets, machine.connection);
  const guest = await Guest.attach(domain, await knownKernels());
  const { layout } = guest;
  const rq = membersOf(layout, 'rq', ['curr']);
  const task = membersOf(layout, 'task_struct', ['on_rq']);
  using paper = new PaperWay(path.join(machine.directory, 'memory'), guest.space);
  const word = (address: bigint, size?: number) => words.at(Number(paper.translate(address)), size);
  const curr = word(advance(guest.percpu('runqueues', guest.cpus[0]!), rq.curr.offset));
  const { processes } = await guest.take();
  const seen = names.map((name) => {
    const { address } = findProcess(processes, name);
    const onQueue = word(advance(address, task.on_rq.offset), task.on_rq.size);
    return { process: name, runs: () => curr() === address, wants: () => onQueue() !== 0n };
  });
  guest.detach();
  return seen;
}

/** When pi1 ran, and when another one wanted to. */
function isOfUse({ process: name, did }: SeenStretch): boolean {
  return (name === SUBJECT.comm) === (did === 'ran');
}

export async function measure({ form, put, say }: Measuring): Promise<UsedMachines> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-rival-'));
  await using _remove = { [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
  await using u1 = await boot('u1', [SUBJECT.comm], U1);
  await using u2 = await boot('u2', [], U2);
  const machines = [u1, u2];
  using words1 = new MemoryWords(path.join(u1.directory, 'memory'));
  using words2 = new MemoryWords(path.join(u2.directory, 'memory'));
  const seen = [
    ...(await seenIn(u1, words1, [SUBJECT.comm, ...Object.keys(U1)])),
    ...(await seenIn(u2, words2, Object.keys(U2))),
  ];
  const subject = seen[0]!;
  await using daemon = await TurnDaemon.start(
    directory,
    machines,
    requireKernel('debian-6.1-cloud').vmlinux,
    KEYS,
  );
  for (let round = 0; round < ROUNDS[form]; round++) {
    const contenders = CONTENDERS[form];
    for (const contender of round % 2 === 0 ? contenders : contenders.toReversed()) {
      await goesOn();
      const measured = await (contender.way === 'domsched' ? byDaemon() : byAgents(contender.intervalMs));
      for (const [name, stretches] of Map.groupBy(measured.stretches.filter(isOfUse), (one) => one.process))
        put({ ...contender, round, process: name, stretches: stretches.map(({ from, to }) => [from, to]) });
      put({ ...contender, round, seconds: SECONDS[form], ...measured.cost });
    }
    say(`round ${round + 1} of ${ROUNDS[form]}`);
  }
  for (const machine of machines) machine.checkConsole();
  return {
    accelerator: u1.accelerator,
    guests: [
      `U1 and U2: Debian ${u1.kernel.release}, 1 vCPU each, QEMU's own network; pi1 computes; the others rest at least and compute, ms: ${[U1, U2].flatMap((all) => Object.entries(all).map(([name, { restMs, burstMs }]) => `${name} ${restMs}/${burstMs}`)).join(', ')}; the agents at nice ${SHELL_NICE}`,
    ],
  };

  async function byDaemon() {
    await daemon.go(POLICY);
    await sleep(WARM_MS);
    const before = cpuOf(daemon.pid);
    const stretches = await lookOn(seen, SECONDS[form] * 1000);
    const hostMs = cpuOf(daemon.pid) - before;
    await daemon.rest();
    return { stretches, cost: { hostMs, guestMs: 0 } satisfies RivalCost };
  }

  /** Until whoever held pi1 has let go of it. */
  async function goesOn(): Promise<void> {
    await until('pi1 goes on', () => subject.wants(), LIMIT_MS, 10);
  }

  async function byAgents(intervalMs: number) {
    await using coordinator = await CoordinatorProcess.start(machines.length, SUBJECT, [AGENT]);
    for (const machine of machines)
      await machine.run(
        `${AGENT} ${HOST} ${coordinator.port} ${machine.name} ${intervalMs} </dev/null >/dev/null 2>/dev/console &`,
      );
    await coordinator.ready();
    await sleep(WARM_MS);
    const guestBefore = await agentsMs();
    const hostBefore = cpuOf(coordinator.pid);
    const stretches = await lookOn(seen, SECONDS[form] * 1000);
    const hostMs = cpuOf(coordinator.pid) - hostBefore;
    const guestMs = (await agentsMs()) - guestBefore;
    const counts = await coordinator.end();
    if (counts.refused > 0) throw new Error(`an agent said what is no line: ${JSON.stringify(counts)}`);
    return { stretches, cost: { hostMs, guestMs, counts } satisfies RivalCost };
  }

  /** CPU time of all agents, by the kernels of their guests. */
  async function agentsMs(): Promise<number> {
    const texts = await Promise.all(
      machines.map((machine) => machine.run(`cat /proc/$(pidof ${AGENT})/schedstat`)),
    );
    return texts.reduce((sum, text) => sum + Number(text.split(' ')[0]) / 1e6, 0);
  }
}
