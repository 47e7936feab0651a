import { type Problem, problemsOf } from '../tick/problems.ts';
import type { Tick, TickAction, TickDomain, TickProcess, TickWait } from '../tick/tick.ts';

/** A guest is believed to have at most this many CPUs. */
const MOST_CPUS = 4096;

/** A year. */
const MOST_WAIT_NS = 3.2e16;

/** What a process did between two looks. */
export interface Span {
  /** ms since the trace began. */
  readonly from: number;
  readonly to: number;
  /** CPU time as a part of one CPU; 1 is a whole CPU. */
  readonly share: number;
  /** It could have run more: at the end of the span it was on a CPU or waited for one. */
  readonly wanted: boolean;
}

/** A period in which a process was held. */
export interface HeldPeriod {
  readonly domain: string;
  readonly pid: number;
  readonly comm: string;
  readonly policy: string;
  readonly reason: string;
  /** ms since the trace began. */
  readonly from: number;
  readonly to: number;
  /** It was still held when the trace ended. */
  readonly lasts: boolean;
}

/** One process over the whole trace. */
export interface TracedProcess {
  readonly domain: string;
  readonly pid: number;
  readonly comm: string;
  readonly kernelThread: boolean;
  /** CPU time within the trace, in ms. */
  readonly ranMs: number;
  readonly heldMs: number;
  /** First and last sight, in ms since the trace began. */
  readonly first: number;
  readonly last: number;
  readonly spans: readonly Span[];
  readonly held: readonly HeldPeriod[];
}

export interface DomainRow extends Pick<TickDomain, 'id' | 'name' | 'hypervisor' | 'kernel' | 'vcpus'> {
  readonly ranMs: number;
  /** Ticks at which it could not be read, and the reason at the last of them. */
  readonly failures: number;
  readonly error?: TickDomain['error'];
  /** Ticks at which its guest claimed more CPU time than the host saw its vCPUs use. */
  readonly overstated: number;
  /** It could be read at the last tick at which it existed. */
  readonly isReadable: boolean;
}

/** An edit with the time of its report. */
export interface TimedAction extends TickAction {
  /** ms since the trace began. */
  readonly at: number;
}

/** Waits of processes of one name because of one culprit, over the whole trace. */
export interface TracedWait extends Omit<TickWait, 'ns'> {
  readonly waitedMs: number;
}

/** Something that an operator had to see to, with the message of its last sample. */
export interface TracedProblem extends Omit<Problem, 'since'> {
  /** Ticks that told of it. */
  readonly samples: number;
  /** First and last of them, in ms since the trace began. */
  readonly from: number;
  readonly to: number;
  /** The last tick told of it. */
  readonly lasts: boolean;
}

/** A whole trace, by process. */
export interface History {
  /** Whose traces it is made of, if there are several. */
  readonly hosts?: readonly string[];
  /** Time of the first tick, ISO 8601. */
  readonly started: string;
  readonly durationMs: number;
  readonly ticks: number;
  readonly missed: number;
  readonly domains: readonly DomainRow[];
  /** Every process that was seen, domain by domain in order of appearance. */
  readonly rows: readonly TracedProcess[];
  readonly actions: readonly TimedAction[];
  /** In order of appearance. */
  readonly problems: readonly TracedProblem[];
  /** The longest first. */
  readonly waits: readonly TracedWait[];
}

interface Tracked {
  report: TickProcess;
  readonly domain: string;
  readonly first: number;
  seen: number;
  ranMs: number;
  readonly spans: Span[];
  readonly held: { -readonly [K in keyof HeldPeriod]: HeldPeriod[K] }[];
}

/**
 * Combines ticks per process. CPU time shows what ran, including a process that slept at both looks and ran in between.
 */
export async function collect(ticks: AsyncIterable<Tick> | Iterable<Tick>): Promise<History> {
  const tracked = new Map<string, Tracked>();
  const domains = new Map<string, DomainRow>();
  const actions: TimedAction[] = [];
  const problems = new Map<string, TracedProblem>();
  const waits = new Map<string, { wait: TickWait; waitedMs: number }>();
  let first: Tick | undefined;
  let at = 0;
  let count = 0;
  let missed = 0;
  for await (const tick of ticks) {
    first ??= tick;
    // If the clock went back, treat it as standing still.
    at = Math.max(at, tick.ms - first.ms);
    count++;
    missed += tick === first ? 0 : tick.missed;
    for (const action of tick.actions) actions.push({ ...action, at });
    for (const { code, message, domain } of problemsOf(tick)) {
      const key = JSON.stringify([code, domain]);
      const { from = at, samples = 0 } = problems.get(key) ?? {};
      const where = domain !== undefined && { domain };
      problems.set(key, { code, message, ...where, from, to: at, samples: samples + 1, lasts: true });
    }
    for (const wait of tick.waits ?? []) {
      const { domain, comm, culprit, place, ns } = wait;
      const key = JSON.stringify([domain, comm, culprit.kind, culprit.domain, culprit.comm, place]);
      const waitedMs = (waits.get(key)?.waitedMs ?? 0) + believable(ns) / 1e6;
      waits.set(key, { wait, waitedMs });
    }
    for (const domain of tick.domains) {
      const before = domains.get(domain.id);
      const { id, name, hypervisor, kernel = before?.kernel, vcpus } = domain;
      const { error = before?.error } = domain;
      let ranMs = before?.ranMs ?? 0;
      for (const process of domain.processes) {
        const key = `${id} ${process.key}`;
        const known = tracked.get(key);
        if (known === undefined) tracked.set(key, begin(id, process, at, tick.time));
        else ranMs += follow(known, process, at, tick.time, Math.min(Math.max(1, vcpus), MOST_CPUS));
      }
      const isReadable = domain.error === undefined;
      domains.set(id, {
        ...{ id, name, hypervisor, vcpus, ranMs, isReadable },
        failures: (before?.failures ?? 0) + (isReadable ? 0 : 1),
        overstated: (before?.overstated ?? 0) + (domain.overstated ? 1 : 0),
        ...(kernel !== undefined && { kernel }),
        ...(error !== undefined && { error }),
      });
    }
  }
  const rows = [...tracked.values()].map((process) => finish(process, at));
  const order = new Map([...domains.keys()].map((id, i) => [id, i]));
  rows.sort((a, b) => order.get(a.domain)! - order.get(b.domain)!);
  return {
    started: first?.time ?? new Date(0).toISOString(),
    durationMs: at,
    ticks: count,
    missed,
    domains: [...domains.values()],
    rows,
    actions,
    problems: Array.from(problems.values(), (problem) => ({ ...problem, lasts: problem.to === at })),
    waits: Array.from(waits.values(), ({ wait: { ns: _, ...wait }, waitedMs }) => ({
      ...wait,
      waitedMs,
    })).sort((a, b) => b.waitedMs - a.waitedMs),
  };
}

/** No sum of waits may overflow, whatever a trace says. */
function believable(ns: number): number {
  return Number.isFinite(ns) && ns > 0 ? Math.min(ns, MOST_WAIT_NS) : 0;
}

function begin(domain: string, report: TickProcess, at: number, time: string): Tracked {
  const process: Tracked = { report, domain, first: at, seen: at, ranMs: 0, spans: [], held: [] };
  noteHeld(process, report, at, time);
  return process;
}

/** @returns how long it ran since it was last seen, in ms */
function follow(process: Tracked, report: TickProcess, at: number, time: string, vcpus: number): number {
  const { seen } = process;
  const elapsed = at - seen;
  // A process gets no more CPUs than there are, whatever its counters say.
  const ranMs = Math.min(Math.max(0, report.cpuNs - process.report.cpuNs) / 1e6, elapsed * vcpus);
  noteHeld(process, report, at, time);
  process.report = report;
  process.seen = at;
  process.ranMs += ranMs;
  if (elapsed <= 0) return 0;
  const share = ranMs / elapsed;
  const wanted = report.state === 'ready' || report.state === 'running';
  if (share > 0 || wanted) {
    const last = process.spans.at(-1);
    const goesOn = last !== undefined && last.to === seen && last.share === share && last.wanted === wanted;
    if (goesOn) process.spans[process.spans.length - 1] = { ...last, to: at };
    else process.spans.push({ from: seen, to: at, share, wanted });
  }
  return ranMs;
}

function noteHeld(process: Tracked, report: TickProcess, at: number, time: string): void {
  const open = process.held.at(-1);
  const isOpen = open?.lasts ?? false;
  if (report.held === undefined) {
    // The hold ended after the previous look.
    if (isOpen) open!.lasts = false;
    return;
  }
  const { policy, reason, since } = report.held;
  if (isOpen && open!.policy === policy && open!.reason === reason) {
    open!.to = at;
    return;
  }
  if (isOpen) open!.lasts = false;
  const ago = Date.parse(time) - Date.parse(since);
  const began = Number.isFinite(ago) ? at - ago : at;
  const from = isOpen ? open!.to : Math.min(Math.max(began, process.seen), at);
  const { domain } = process;
  const { pid, comm } = report;
  process.held.push({ domain, pid, comm, policy, reason, from, to: at, lasts: true });
}

function finish({ report, domain, first, seen, ranMs, spans, held }: Tracked, end: number): TracedProcess {
  const open = held.at(-1);
  // A process that ended while held is no longer held.
  if (open?.lasts && seen < end) open.lasts = false;
  const { pid, comm, kernelThread } = report;
  const heldMs = held.reduce((sum, { from, to }) => sum + to - from, 0);
  return { domain, pid, comm, kernelThread, ranMs, heldMs, first, last: seen, spans, held };
}
