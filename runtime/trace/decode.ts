import type { Tick, TickDomain, TickFleet, TickProcess } from '../tick/tick.ts';
import { changedFleet } from './fleet-delta.ts';
import type { DomainLine, ProcessLine, TickLine } from './line.ts';

/** State of a domain after the last line. */
export interface DecodedDomain {
  facts: TickDomain;
  readonly processes: Map<string, TickProcess>;
}

/**
 * Turns lines back into ticks. Does not use Node, because the page decodes the daemon's events with it. A line that
 * mentions something new is accepted as it is; missing facts are zero or empty.
 */
export class LineDecoder {
  readonly domains = new Map<string, DecodedDomain>();
  fleet: TickFleet | undefined;

  /** Applies one line; {@link domains} is then the state after it. */
  apply(line: TickLine): void {
    if (line.full) {
      this.domains.clear();
      this.fleet = undefined;
    }
    this.fleet = changedFleet(this.fleet, line.fleet);
    for (const id of line.gone ?? []) this.domains.delete(id);
    for (const state of this.domains.values()) {
      for (const [key, process] of state.processes) {
        if (process.ranNs !== 0) state.processes.set(key, { ...process, ranNs: 0 });
      }
    }
    for (const domain of line.domains) this.#applyDomain(domain);
  }

  /** Applies one line and returns the whole tick that it represents. */
  decode(line: TickLine): Tick {
    this.apply(line);
    const { tick, time, ms, elapsedMs, tookMs, missed, early, sentinel, actions, waits, journal } = line;
    const { fleet } = this;
    const told = {
      ...(early && { early }),
      ...(sentinel && { sentinel }),
      ...(waits && { waits }),
      ...(fleet && { fleet }),
      ...(journal && { journal }),
    };
    return { tick, time, ms, elapsedMs, tookMs, missed, actions, ...told, domains: this.tickDomains() };
  }

  /** All domains with all their processes. */
  tickDomains(): TickDomain[] {
    return [...this.domains.values()].map(({ facts, processes }) => ({
      ...facts,
      processes: [...processes.values()],
    }));
  }

  #applyDomain(line: DomainLine): void {
    const { id, processes = [], gone = [], ...changes } = line;
    let state = this.domains.get(id);
    if (state === undefined) {
      state = { facts: { id, name: id, hypervisor: '', vcpus: 0, processes: [] }, processes: new Map() };
      this.domains.set(id, state);
    }
    state.facts = changed(state.facts, changes);
    for (const key of gone) state.processes.delete(key);
    for (const process of processes) {
      state.processes.set(process.key, changed(state.processes.get(process.key) ?? NEW_PROCESS, process));
    }
  }
}

const NEW_PROCESS: TickProcess = {
  key: '',
  pid: 0,
  ppid: 0,
  comm: '',
  state: 'sleeping',
  nice: 0,
  kernelThread: false,
  cpuNs: 0,
  ranNs: 0,
  cpu: 0,
};

function changed<T extends TickDomain | TickProcess>(
  before: T,
  changes: Omit<DomainLine, 'id'> | Omit<ProcessLine, 'key'>,
): T {
  const now: Record<string, unknown> = { ...before };
  for (const [fact, value] of Object.entries(changes)) {
    if (value === null) delete now[fact];
    else if (value !== undefined) now[fact] = value;
  }
  return now as unknown as T;
}
