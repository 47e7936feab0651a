import { setTimeout as sleep } from 'node:timers/promises';
import type { ProcessRow } from '../control/control.ts';
import { cpuTime } from '../guest/cpu-time.ts';
import { printable } from '../guest/text.ts';
import type { Tick, TickDomain, TickProcess } from '../tick/tick.ts';
import { TickClock } from '../tick/tick-clock.ts';
import { STATES } from '../watch/state.ts';
import type { FleetProcesses, HostProcesses } from './fleet-processes.ts';

/** CPU time of a host's processes at its last answer, by key, and when that came. */
interface EarlierHost {
  readonly heardMs: number;
  readonly cpuNs: ReadonlyMap<string, number>;
}

/**
 * Ticks of a whole fleet, made of the answers of its hosts: what ran is the difference of two answers. Every domain is
 * named `host/domain`; what failed on a host is a domain without processes.
 */
export class FleetTicks {
  readonly #now: () => number;
  readonly #clock: TickClock;
  #before: ReadonlyMap<string, EarlierHost> = new Map();

  /** @param now monotonic, in ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#clock = new TickClock(now);
  }

  /** @throws DomschedError `host-unreachable` when the fleet's server is gone */
  async *ticks(
    processes: Pick<FleetProcesses, 'ask'>,
    signal: AbortSignal,
    intervalMs: number,
  ): AsyncGenerator<Tick> {
    while (!signal.aborted) {
      const { nowMs } = this.#clock.begin();
      const { hosts } = await processes.ask();
      if (signal.aborted) return;
      yield this.#tick(hosts);
      const restMs = Math.max(0, intervalMs - (this.#now() - nowMs));
      await sleep(restMs, undefined, { signal }).catch(() => {});
    }
  }

  /** The answers of all hosts as a tick. */
  #tick(hosts: readonly HostProcesses[]): Tick {
    const domains = hosts.flatMap((host) => domainsOf(host, this.#before.get(host.host)));
    // Hosts answer one after the other: each process's part of a CPU is that of its own host's interval.
    this.#before = new Map(
      hosts.map(({ host, heardMs, rows }) => [
        host,
        { heardMs, cpuNs: new Map(rows.map((row) => [keyOf(row), cpuTime(row)])) },
      ]),
    );
    const tick = this.#clock.end({ missed: 0, domains: [], actions: [] });
    return {
      ...tick,
      domains: domains.map(({ domain, elapsedMs }) => scaled(domain, elapsedMs, tick.elapsedMs)),
    };
  }
}

interface HeardDomain {
  readonly domain: TickDomain;
  /** Between the two answers of its host. */
  readonly elapsedMs: number;
}

function domainsOf({ heardMs, rows, errors }: HostProcesses, before: EarlierHost | undefined): HeardDomain[] {
  const elapsedMs = before === undefined ? 0 : heardMs - before.heardMs;
  const unread = errors.map(({ domain, code, message }) => ({
    ...factsOf(domain),
    error: { code, message: printable(message) },
    processes: [],
  }));
  const read = [...Map.groupBy(rows, ({ domain }) => domain)].map(([domain, own]) => ({
    ...factsOf(domain),
    processes: own.map((row) => tickProcess(row, before?.cpuNs.get(keyOf(row)))),
  }));
  return [...unread, ...read].map((domain) => ({ domain, elapsedMs }));
}

/** How many CPUs a domain of another host has is not told. */
function factsOf(domain: string) {
  const name = printable(domain);
  return { id: name, name, hypervisor: 'fleet', vcpus: 0 };
}

function tickProcess(row: ProcessRow, beforeNs: number | undefined): TickProcess {
  const { pid, ppid, comm, nice, kernelThread, cpu } = row;
  // Another version may know more states.
  const state = Object.hasOwn(STATES, row.state) ? STATES[row.state] : 'sleeping';
  const cpuNs = cpuTime(row);
  const ranNs = beforeNs === undefined ? 0 : Math.max(0, cpuNs - beforeNs);
  return { key: keyOf(row), pid, ppid, comm, state, nice, kernelThread, cpu, cpuNs, ranNs };
}

function scaled(domain: TickDomain, ownMs: number, wholeMs: number): TickDomain {
  const factor = ownMs > 0 ? wholeMs / ownMs : 0;
  const processes = domain.processes.map((process) => ({ ...process, ranNs: process.ranNs * factor }));
  return { ...domain, processes };
}

function keyOf({ domain, pid, startTimeNs }: ProcessRow): string {
  return JSON.stringify([domain, pid, startTimeNs]);
}
