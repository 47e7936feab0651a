/**
 * Simulated hosts of a fleet, many in one process: the fleet's room and the combination of policies as the daemon has them,
 * over domains that are made up. test/bench/fleet.bench.ts starts it, and talks to it over its channel.
 */
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { parseFleetPolicy } from '../../runtime/daemon/fleet-policy.ts';
import { mindedHosts } from '../../runtime/daemon/minded-hosts.ts';
import { placeAsks } from '../../runtime/daemon/policies.ts';
import { FLEET } from '../../runtime/fleet/config.ts';
import { Fleet } from '../../runtime/fleet/fleet.ts';
import { PolicyCache } from '../../runtime/fleet/policy-cache.ts';
import { type CombinedMemory, combine, type PlacedPolicy } from '../../runtime/policy/combine.ts';
import { idleOnly } from '../../runtime/policy/idle-only.ts';
import { priority } from '../../runtime/policy/priority.ts';
import { selector } from '../../runtime/policy/selector.ts';
import type { DomainView, Policy, ProcessView, World } from '../../runtime/policy/world.ts';

/**
 * For whom the holders hold their backups: for one other host, listening to all; for one, listening to that one alone, as with
 * a policy that names it; for anybody (`idle-only`); for anybody, listening to all, as with a module; and for anybody, as what
 * has a later place (`priority`).
 */
export type Holds = 'for-one' | 'named' | 'idle' | 'idle-all' | 'places';

/** What a process of hosts is told at its start. */
export interface HostsPlan {
  readonly url: string;
  readonly directory: string;
  /** Numbers of its own hosts, and how many there are in all. */
  readonly first: number;
  readonly count: number;
  readonly total: number;
  /** The hosts with a smaller number have a backup that is held while the service of another host works. */
  readonly holders: number;
  readonly holds: Holds;
  readonly leaseMs: number;
  readonly changeMs: number;
}

/**
 * What is asked of it. `still`: no more ticks, and all that was said is with the server. `rest`: nobody works, until `one`
 * of the first process's does, or, by lot, half of them.
 */
export type HostsAsk = 'start' | 'still' | 'go on' | 'figures' | 'rest' | 'one' | 'half';

export interface HostsFigures {
  readonly connected: number;
  readonly listening: number;
  readonly held: number;
  readonly sent: number;
  /** By those that listen, in all, and what each of them said itself, which it does not hear. */
  readonly received: number;
  readonly ownWords: number;
  /** Words that did not arrive, as their numbers tell. */
  readonly missed: number;
  /** Looks of holders, and those of them at which nobody was held. */
  readonly looks: number;
  readonly freeLooks: number;
  /** Looks at which somebody was held two leases after the last word that this host heard, by its own clock. */
  readonly overdueLooks: number;
  /** From a service's beginning to work to the decision to hold, in ms, since the last figures. */
  readonly delays: readonly number[];
  readonly cpuMs: number;
}

const TICK_MS = 500;
/** Longer than hosts listen without a need. */
const A_WHILE_MS = 120_000;
const SERVICE = { comm: 'service' };
const BACKUP = { comm: 'backup' };
const IDLE_ONLY = '[[policy]]\ntype = "idle-only"\nselect = [{ comm = "backup" }]\n';
const ORDER = [SERVICE, { comm: 'other' }, BACKUP];
const PLACES = `[[policy]]\ntype = "priority"\norder = [${ORDER.map(({ comm }) => `{ comm = "${comm}" }`)}]\n`;
/** A pid can hold so much of a time in ms: it tells whoever hears of a process when that began to work. */
const PIDS = 2 ** 22;

const nowMs = () => performance.timeOrigin + performance.now();
const nameOf = (number: number) => `host-${number}`;

class SimulatedHost {
  readonly fleet: Fleet;
  readonly delays: number[] = [];
  readonly #isHolder: boolean;
  looks = 0;
  freeLooks = 0;
  overdueLooks = 0;
  #heardMs = Infinity;
  readonly #number: number;
  readonly #decide: ReturnType<typeof combine>;
  #memory: CombinedMemory | undefined;
  #isBusy = false;
  #beganMs = 0;
  #lastMs = nowMs();
  isHeld = false;

  constructor({ url, directory, total, holders, holds, leaseMs }: HostsPlan, number: number) {
    this.#number = number;
    this.#isHolder = number < holders;
    const config = FLEET.parse({ servers: [url], name: nameOf(number), lease: leaseMs / 1000 });
    const cache = new PolicyCache(config, path.join(directory, nameOf(number)));
    let laterMs = 0;
    const clock = () => performance.now() + laterMs;
    this.fleet = new Fleet(config, pino({ level: 'silent' }), clock, cache);
    const hear = this.fleet.hear.bind(this.fleet);
    this.fleet.hear = (message) => {
      this.#heardMs = nowMs();
      hear(message);
    };
    // Where nobody could be held it is as it is a while after the start.
    this.fleet.listen(new Set(this.#isHolder ? ['all'] : []));
    laterMs = A_WHILE_MS;
    const partner = nameOf((number + Math.floor(total / 2)) % total);
    const interest = { selectors: ORDER, thresholds: [] };
    const minded = {
      'for-one': {},
      named: { hosts: [partner] },
      idle: mindedHosts(parseFleetPolicy(IDLE_ONLY, 'idle-only')),
      'idle-all': {},
      places: mindedHosts(parseFleetPolicy(PLACES, 'priority')),
    }[holds];
    this.fleet.watch({ ...interest, ...minded });
    this.fleet.serve(async () => {}, {
      checkPolicy: () => [],
      accounts: async () => ({ ms: 0, threads: [], domains: [] }),
      processes: async () => ({ rows: [], errors: [] }),
    });
    this.#decide = combine(this.#isHolder ? [this.#entry(holds, partner)] : []);
  }

  #entry(holds: Holds, partner: string): PlacedPolicy {
    const entry = { windows: [], limit: undefined, select: selector([BACKUP]) };
    switch (holds) {
      case 'places': {
        const name = 'priority-1';
        const order = ORDER.map((spec) => selector([spec]));
        const policy = this.#noting(priority({ order }) as Policy);
        return { ...entry, name, policy, select: selector(ORDER), asks: placeAsks(name, order) };
      }
      case 'idle':
      case 'idle-all': {
        // But for its own host's.
        const policy = idleOnly({ ignore: ({ elsewhere }) => elsewhere === undefined }) as Policy;
        return { ...entry, name: 'idle-only-1', policy: this.#noting(policy) };
      }
      default:
        return { ...entry, name: 'after', policy: this.#after(partner) };
    }
  }

  change(isBusy = !this.#isBusy): void {
    this.#isBusy = isBusy;
    this.#beganMs = nowMs();
  }

  tick(): void {
    const now = nowMs();
    const elapsedMs = now - this.#lastMs;
    this.#lastMs = now;
    const service = this.#process(
      'service',
      2 + (Math.floor(this.#beganMs) % PIDS),
      this.#isBusy ? elapsedMs * 1e6 : 0,
    );
    const domain: DomainView = {
      id: 'guest',
      name: 'guest',
      vcpus: 1,
      processes: [service, this.#process('backup', 10, 0)],
    };
    const domains = [domain, ...this.fleet.domains(elapsedMs)];
    const decided = this.#decide({ nowMs: now, date: new Date(), elapsedMs, domains }, this.#memory);
    this.#memory = decided.memory;
    this.isHeld = decided.actions.some(({ type }) => type === 'hold');
    if (this.#isHolder) this.looks++;
    if (this.#isHolder && !this.isHeld) this.freeLooks++;
    if (this.isHeld && now - this.#heardMs > 2 * this.fleet.config.lease * 1000) this.overdueLooks++;
    this.fleet.listen(decided.asked);
    this.fleet.tell(decided.believed, elapsedMs);
  }

  /** Holds the backup while the partner's service works. */
  #after(partner: string): Policy {
    return ({ domains, subjects }: World) => {
      const work = domains
        .find(({ name, elsewhere }) => elsewhere && name === partner)
        ?.processes.find(({ comm, ranNs }) => comm === 'service' && ranNs > 0);
      this.#note(work);
      const actions =
        work === undefined
          ? []
          : [...subjects].map((key) => ({ type: 'hold' as const, process: key, reason: partner }));
      return { actions };
    };
  }

  /** Of a policy that holds while anybody else's service works. */
  #noting(policy: Policy): Policy {
    return (world, memory) => {
      const processes = world.domains.flatMap((domain) => domain.processes);
      this.#note(
        processes.find(({ elsewhere, comm, ranNs }) => elsewhere && comm === 'service' && ranNs > 0),
      );
      return policy(world, memory);
    };
  }

  /** @param work for which somebody is held now */
  #note(work: ProcessView | undefined): void {
    if (work === undefined || this.isHeld) return;
    const ago = (Math.floor(nowMs()) % PIDS) - (work.pid - 2);
    this.delays.push(ago < 0 ? ago + PIDS : ago);
  }

  #process(comm: string, pid: number, ranNs: number): ProcessView {
    return {
      key: `${this.#number} ${comm}`,
      domain: 'guest',
      domainName: 'guest',
      pid,
      ppid: 1,
      comm,
      state: 'sleeping',
      nice: 0,
      kernelThread: false,
      cpuNs: 0,
      ranNs,
    };
  }
}

async function serve(plan: HostsPlan): Promise<void> {
  const hosts = Array.from({ length: plan.count }, (_, i) => new SimulatedHost(plan, plan.first + i));
  let still = false;
  let changing = true;
  const every = async (ms: number, work: () => void) => {
    // Hosts know nothing of each other's clocks, and one that got no CPU does not make up for it at once.
    for (
      let next = performance.now() + Math.random() * ms;
      ;
      next = Math.max(next + ms, performance.now() - ms)
    ) {
      await sleep(Math.max(0, next - performance.now()));
      if (!still) work();
    }
  };
  const answer = async (ask: HostsAsk): Promise<HostsFigures | 'done'> => {
    if (ask === 'start')
      for (const host of hosts) {
        void every(TICK_MS, () => host.tick());
        void every(plan.changeMs, () => changing && host.change());
      }
    if (ask === 'rest' || ask === 'one') {
      changing = false;
      for (const host of hosts) if (ask === 'rest') host.change(false);
      if (ask === 'one' && plan.first === 0) hosts[0]!.change(true);
    }
    if (ask === 'half') {
      changing = true;
      for (const host of hosts) host.change(Math.random() < 0.5);
    }
    if (ask === 'go on') still = false;
    if (ask === 'still') {
      still = true;
      await Promise.all(hosts.map(({ fleet }) => fleet.settled()));
    }
    return ask === 'figures' ? figures(hosts) : 'done';
  };
  process.on('message', (ask: HostsAsk) => void answer(ask).then((told) => process.send!(told)));
}

function figures(hosts: readonly SimulatedHost[]): HostsFigures {
  const states = hosts.map(({ fleet }) => fleet.state);
  const listening = states.filter(({ listens }) => listens);
  const { user, system } = process.cpuUsage();
  const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);
  return {
    connected: states.filter(({ connected }) => connected).length,
    listening: listening.length,
    held: hosts.filter(({ isHeld }) => isHeld).length,
    sent: sum(states.map(({ sent }) => sent)),
    received: sum(listening.map(({ received }) => received)),
    ownWords: sum(listening.map(({ sent }) => sent)),
    missed: sum(hosts.map(({ fleet }) => fleet.lost)),
    looks: sum(hosts.map(({ looks }) => looks)),
    freeLooks: sum(hosts.map(({ freeLooks }) => freeLooks)),
    overdueLooks: sum(hosts.map(({ overdueLooks }) => overdueLooks)),
    delays: hosts.flatMap(({ delays }) => delays.splice(0)),
    cpuMs: (user + system) / 1000,
  };
}

if (process.argv[2] !== undefined) await serve(JSON.parse(process.argv[2]) as HostsPlan);
