/**
 * `node test/bench/fleet.bench.ts [HOSTS[/HOLDERS[/HOLDS]]…]`: a fleet of so many simulated hosts on one real server, each with one
 * change in 5 s, of which HOLDERS (a tenth if left out) have somebody to hold and so listen. HOLDS says for whom: for one host,
 * listening to all (`for-one`) or to that one (`named`, and then all hold), or for anybody (`idle`; with `places`, as
 * what comes later in the order of `priority`; with `idle-all`, listening to all). How long it takes from a
 * service's beginning to work to the decision to hold for it on another host, what the server costs, whether anything is
 * lost, how soon all are back after the server was away, and whether anybody stays held when it cannot be heard.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import Table from 'cli-table3';
import { FleetClient } from '../../runtime/fleet/client.ts';
import { FLEET } from '../../runtime/fleet/config.ts';
import { until } from '../live/until.ts';
import { NatsServer } from '../runtime/fleet/nats-server.ts';
import type { Holds, HostsAsk, HostsFigures, HostsPlan } from './fleet-hosts.ts';
import { percentile, record } from './harness.ts';

const LEASE_MS = 5_000;
const CHANGE_MS = 5_000;
const MEASURE_MS = Number(process.env.DOMSCHED_FLEET_SECONDS ?? 40) * 1000;
const WARM_MS = 10_000;
const LONGEST_MS = 300_000;
/** Of a clock tick, by which Linux counts CPU time for others to see. */
const TICK_MS = 10;

/** Hosts in a few processes, asked together. */
class SimulatedHosts implements Disposable {
  readonly #children: ChildProcess[];

  constructor(plan: Omit<HostsPlan, 'first' | 'count'>) {
    const processes = availableParallelism();
    const firstOf = (i: number) => Math.round((i * plan.total) / processes);
    this.#children = Array.from({ length: processes }, (_, i) =>
      fork(path.join(import.meta.dirname, 'fleet-hosts.ts'), [
        JSON.stringify({
          ...plan,
          first: firstOf(i),
          count: firstOf(i + 1) - firstOf(i),
        } satisfies HostsPlan),
      ]),
    );
  }

  async ask(ask: HostsAsk): Promise<void> {
    await this.#ask(ask);
  }

  /** The sums over all processes. */
  async figures(): Promise<HostsFigures> {
    const all = (await this.#ask('figures')) as HostsFigures[];
    return all.reduce((sum, one) => ({
      connected: sum.connected + one.connected,
      listening: sum.listening + one.listening,
      held: sum.held + one.held,
      sent: sum.sent + one.sent,
      received: sum.received + one.received,
      ownWords: sum.ownWords + one.ownWords,
      missed: sum.missed + one.missed,
      looks: sum.looks + one.looks,
      freeLooks: sum.freeLooks + one.freeLooks,
      overdueLooks: sum.overdueLooks + one.overdueLooks,
      delays: [...sum.delays, ...one.delays],
      cpuMs: sum.cpuMs + one.cpuMs,
    }));
  }

  async #ask(ask: HostsAsk): Promise<unknown[]> {
    return Promise.all(
      this.#children.map(async (child) => {
        const told = once(child, 'message');
        child.send(ask);
        return (await told)[0] as unknown;
      }),
    );
  }

  [Symbol.dispose](): void {
    for (const child of this.#children) child.kill('SIGKILL');
  }
}

/** CPU that the server used so far, in ms, and the most memory that it had, in MiB. */
function costOf({ pid }: NatsServer): { readonly cpuMs: number; readonly peakMiB: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  const [, peak] = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!;
  return { cpuMs: (Number(fields[11]) + Number(fields[12])) * TICK_MS, peakMiB: Number(peak) / 1024 };
}

async function measure(total: number, holders: number, holds: Holds) {
  const isForAnybody = holds === 'idle' || holds === 'idle-all' || holds === 'places';
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-fleet-bench-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(directory, { recursive: true, force: true }));
  const server = stack.use(await NatsServer.start());
  {
    // So each host follows the policy, too.
    const config = FLEET.parse({ servers: [server.url], name: 'operator' });
    await using client = await FleetClient.open(config);
    await client.policies.set({ policy: '', by: 'bench', comment: '' }, 0);
  }
  const hosts = stack.use(
    new SimulatedHosts({
      url: server.url,
      directory,
      total,
      holders,
      holds,
      leaseMs: LEASE_MS,
      changeMs: CHANGE_MS,
    }),
  );
  const connected = (count: number) =>
    until(
      `${count} hosts are connected`,
      async () => (await hosts.figures()).connected === count,
      LONGEST_MS,
      100,
    );
  await connected(total);
  await hosts.ask('start');
  await sleep(WARM_MS);

  // Nobody says anything while it is counted: what was said before is heard by then.
  const counted = async () => {
    await hosts.ask('still');
    await hosts.ask('still');
    const found = await hosts.figures();
    await hosts.ask('go on');
    return { ...found, ...costOf(server), hostsMs: found.cpuMs, atMs: performance.now() };
  };
  const before = await counted();
  await sleep(MEASURE_MS);
  const after = await counted();
  const seconds = (after.atMs - before.atMs) / 1000;
  const listeners = after.listening;
  const words = after.sent - before.sent;
  const deliveries = after.received - before.received;
  // By their names each word has one listener: every host is the one that one other holds for. Who hears now these and
  // now those knows by the numbers of their words.
  const meant = holds === 'named' ? words : words * listeners - (after.ownWords - before.ownWords);
  const lost = holds === 'idle' || holds === 'places' ? after.missed - before.missed : meant - deliveries;
  const { delays, ...edges } = isForAnybody ? await edgesOf(hosts, holders) : { delays: after.delays };

  // All are away at once, and come back at once.
  await server.kill();
  await until('all are cut off', async () => (await hosts.figures()).connected === 0, LONGEST_MS, 100);
  await server.again();
  const back = performance.now();
  await connected(total);
  const backMs = performance.now() - back;

  // For its clients the server is behind a network that loses everything. Until somebody is held, then for two leases.
  await until('somebody is held', async () => (await hosts.figures()).held > 0, LONGEST_MS, 100);
  const { peakMiB } = costOf(server);
  server.pause(true);
  const heldBefore = (await hosts.figures()).held;
  await sleep(2 * LEASE_MS + 1_000);
  const { held: heldAfter, overdueLooks } = await hosts.figures();
  server.pause(false);
  await connected(total);

  return {
    total,
    holds,
    listeners,
    seconds,
    words: words / seconds,
    deliveries: deliveries / seconds,
    lost,
    // Somebody works all the time: nobody is to be free.
    ...(isForAnybody && { looks: after.looks - before.looks, freeLooks: after.freeLooks - before.freeLooks }),
    ...edges,
    delays: delays.length,
    p50Ms: percentile(delays, 0.5),
    p99Ms: percentile(delays, 0.99),
    serverCores: (after.cpuMs - before.cpuMs) / 1000 / seconds,
    serverUs: ((after.cpuMs - before.cpuMs) * 1000) / deliveries,
    peakMiB,
    hostsCores: (after.hostsMs - before.hostsMs) / 1000 / seconds,
    backMs,
    heldBefore,
    // A process that gets no CPU looks late: by its own clock nobody is held too long.
    overdueLooks,
    heldAfter,
    load: loadavg()[0]!,
  };
}

/** Nobody works any more, until all go on; then one begins, until all hold for it but for its own host. */
async function edgesOf(hosts: SimulatedHosts, holders: number) {
  const held = async (count: number) => (await hosts.figures()).held === count;
  await hosts.ask('rest');
  const rested = performance.now();
  await until('nobody is held', () => held(0), LONGEST_MS, 100);
  const freedMs = performance.now() - rested;
  // What was said before is heard.
  await sleep(2 * LEASE_MS);
  await hosts.figures();
  await hosts.ask('one');
  let delays: number[] = [];
  await until(
    'all are held',
    async () => {
      const found = await hosts.figures();
      delays = [...delays, ...found.delays];
      return found.held === holders - 1;
    },
    LONGEST_MS,
    100,
  );
  await hosts.ask('half');
  await sleep(WARM_MS);
  return { freedMs, delays };
}

const sizes = process.argv.length > 2 ? process.argv.slice(2) : ['100/100', '100', '300', '1000'];
const results: Awaited<ReturnType<typeof measure>>[] = [];
const table = new Table({
  head: [
    ...[
      'hosts',
      'hold',
      'listen',
      'words/s',
      'deliveries/s',
      'lost',
      'p50 ms',
      'p99 ms',
      'server cores',
      'µs each',
    ],
    ...['free looks', 'freed ms', 'server MiB', 'back ms', 'held before', 'and after', 'load'],
  ],
  style: { head: [], border: [] },
});
for (const size of sizes) {
  const [hosts, holding, holds = 'for-one'] = size.split('/');
  const total = Number(hosts);
  const holders = holds === 'named' ? total : Number(holding ?? Math.ceil(total / 10));
  const found = await measure(total, holders, holds as Holds);
  results.push(found);
  table.push([
    ...[
      found.total,
      found.holds,
      found.listeners,
      found.words.toFixed(1),
      found.deliveries.toFixed(0),
      found.lost,
    ],
    ...[
      found.p50Ms.toFixed(0),
      found.p99Ms.toFixed(0),
      found.serverCores.toFixed(3),
      found.serverUs.toFixed(1),
    ],
    ...[
      found.freeLooks === undefined ? '-' : `${found.freeLooks} of ${found.looks}`,
      found.freedMs?.toFixed(0) ?? '-',
      found.peakMiB.toFixed(0),
      found.backMs.toFixed(0),
      found.heldBefore,
      found.heldAfter,
      found.load.toFixed(1),
    ],
  ]);
  console.log(JSON.stringify(found));
}
console.log(table.toString());
await record('fleet', { leaseMs: LEASE_MS, changeMs: CHANGE_MS, results });
if (results.some(({ lost, overdueLooks }) => lost !== 0 || overdueLooks !== 0)) process.exitCode = 1;
