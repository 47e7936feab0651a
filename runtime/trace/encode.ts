import type { Tick, TickDomain, TickFleet, TickProcess } from '../tick/tick.ts';
import { fleetLine } from './fleet-delta.ts';
import type { DomainLine, ProcessLine, TickLine } from './line.ts';

interface Known {
  readonly facts: TickDomain;
  readonly processes: ReadonlyMap<string, TickProcess>;
}

/** Turns ticks into lines, each with the difference from the one before. */
export class LineEncoder {
  #domains = new Map<string, Known>();
  #fleet: TickFleet | undefined;
  #isFull = true;

  /** Makes the next line a full one. */
  reset(): void {
    this.#domains.clear();
    this.#fleet = undefined;
    this.#isFull = true;
  }

  /** @param dropped ticks left out before this one */
  encode(seen: Tick, dropped = 0): TickLine {
    const now = new Map<string, Known>();
    const lines: DomainLine[] = [];
    for (const domain of seen.domains) {
      const last = this.#domains.get(domain.id);
      const processes = new Map(domain.processes.map((process) => [process.key, process]));
      now.set(domain.id, { facts: domain, processes });
      const line = domainLine(domain, processes, last?.facts, last?.processes);
      if (line !== undefined) lines.push(line);
    }
    const gone = [...this.#domains.keys()].filter((id) => !now.has(id));
    const fleet = fleetLine(seen.fleet, this.#fleet);
    const { tick, time, ms, elapsedMs, tookMs, missed, early, sentinel, actions, waits, journal } = seen;
    const line: TickLine = {
      tick: finite(tick),
      time,
      ms: finite(ms),
      elapsedMs: finite(elapsedMs),
      tookMs: finite(tookMs),
      missed: finite(missed),
      ...(early && { early }),
      ...(sentinel && { sentinel: { looks: finite(sentinel.looks), ms: finite(sentinel.ms) } }),
      ...(this.#isFull && { full: true as const }),
      ...(dropped > 0 && { dropped }),
      domains: lines,
      ...(gone.length > 0 && { gone }),
      actions: actions.map((action) => ({
        ...action,
        ...(action.pid !== undefined && { pid: finite(action.pid) }),
        pausedUs: finite(action.pausedUs),
      })),
      ...(fleet !== undefined && { fleet }),
      ...(journal !== undefined && { journal }),
      ...(waits !== undefined && { waits: waits.map((wait) => ({ ...wait, ns: finite(wait.ns) })) }),
    };
    this.#domains = now;
    this.#fleet = seen.fleet;
    this.#isFull = false;
    return line;
  }
}

const DOMAIN_FACTS = ['name', 'hypervisor', 'kernel', 'vcpus', 'weight', 'cap', 'overstated'] as const;
const PROCESS_FACTS = [
  'pid',
  'ppid',
  'comm',
  'state',
  'nice',
  'kernelThread',
  'cpuNs',
  'cpu',
  'heldFor',
] as const;

/** @returns undefined if nothing changed */
function domainLine(
  domain: TickDomain,
  processes: ReadonlyMap<string, TickProcess>,
  last: TickDomain | undefined,
  lastProcesses: ReadonlyMap<string, TickProcess> | undefined,
): DomainLine | undefined {
  const line: Record<string, unknown> = { id: domain.id };
  change(line, DOMAIN_FACTS, domain, last);
  const { error } = domain;
  if (error?.code !== last?.error?.code || error?.message !== last?.error?.message)
    line.error = error ?? null;
  const lines: ProcessLine[] = [];
  for (const process of processes.values()) {
    const found = processLine(process, lastProcesses?.get(process.key));
    if (found !== undefined) lines.push(found);
  }
  if (lines.length > 0) line.processes = lines;
  const gone = [...(lastProcesses?.keys() ?? [])].filter((key) => !processes.has(key));
  if (gone.length > 0) line.gone = gone;
  const isSilent = last !== undefined && Object.keys(line).length === 1;
  return isSilent ? undefined : (line as unknown as DomainLine);
}

function processLine(process: TickProcess, last: TickProcess | undefined): ProcessLine | undefined {
  const line: Record<string, unknown> = { key: process.key };
  change(line, PROCESS_FACTS, process, last);
  const ranNs = finite(process.ranNs);
  if (ranNs !== 0) line.ranNs = ranNs;
  const { held } = process;
  const isAsBefore =
    held?.since === last?.held?.since &&
    held?.policy === last?.held?.policy &&
    held?.reason === last?.held?.reason;
  if (!isAsBefore) line.held = held ?? null;
  const isSilent = last !== undefined && Object.keys(line).length === 1;
  return isSilent ? undefined : (line as unknown as ProcessLine);
}

function change<T>(line: Record<string, unknown>, facts: readonly (keyof T & string)[], now: T, last?: T) {
  for (const fact of facts) {
    if (now[fact] === last?.[fact]) continue;
    const value: unknown = now[fact] ?? null;
    line[fact] = typeof value === 'number' ? finite(value) : value;
  }
}

/** JSON has no infinity or NaN, and a guest's counters may contain anything. */
function finite(value: number): number {
  return Number.isFinite(value) ? value : 0;
}
