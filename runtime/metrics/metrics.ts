import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from '@prometheus-io/client';
import { problemsOf } from '../tick/problems.ts';
import type { Observer, Tick, TickAction, TickDomain } from '../tick/tick.ts';
import { FleetSeries } from './fleet-series.ts';
import { WaitSeries } from './wait-series.ts';

/** Default limit of processes with series of their own. */
export const DEFAULT_PROCESSES = 50;
/** At most this many domains have series of their own; the others are counted together as `(others)`. */
const MOST_DOMAINS = 1000;
const OTHERS = '(others)';
/** In seconds: pauses last from about 100 µs to some ms. */
const PAUSE_BUCKETS = [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5];
const TICK_BUCKETS = [1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5];

export interface MetricsOptions {
  /**
   * Report the CPU share of at most this many processes, the busiest, and as many pairs of who waited for whom; 0 for
   * none.
   */
  readonly processes?: number;
  /** Leave out metrics of our own process (CPU, memory, event loop). */
  readonly withoutOwn?: boolean;
}

/**
 * The daemon's activity as Prometheus metrics. Guests cannot increase the number of series: only the busiest processes
 * are reported, and names of edits, outcomes and reasons are ours.
 */
export class Metrics implements Observer {
  readonly #registry = new Registry();
  readonly #processes: number;
  readonly #ticks = this.#counter('ticks_total', 'Looks at all domains');
  readonly #missed = this.#counter('missed_ticks_total', 'Looks left out since the one before was not over');
  readonly #early = this.#counter(
    'early_ticks_total',
    'Looks at all domains that were brought forward, since somebody had begun to run',
  );
  readonly #sentinelLooks = this.#counter('sentinel_looks_total', 'Looks at who is on a CPU, in between');
  readonly #sentinelTime = this.#counter('sentinel_cpu_seconds_total', 'CPU time that these looks took');
  readonly #tickTime = this.#histogram(
    'tick_duration_seconds',
    'Time that reading and deciding took',
    TICK_BUCKETS,
  );
  readonly #unwritable = this.#gauge(
    'journal_failed',
    'Whether nothing can be held or changed, because it cannot be written down',
  );
  readonly #problems = this.#gauge(
    'problem',
    'What an operator has to see to: a guest that may be half written, a journal that cannot be written; with the next step',
    ['code', 'domain', 'message'],
  );
  readonly #lastTick = this.#gauge('last_tick_timestamp_seconds', 'When the last look was, since 1970');
  readonly #paused = this.#histogram(
    'pause_seconds',
    'Time that a domain was paused for an edit',
    PAUSE_BUCKETS,
    ['action'],
  );
  readonly #edits = this.#counter('edits_total', 'Edits that were tried', ['action', 'technique', 'outcome']);
  readonly #refusals = this.#counter('refusals_total', 'Edits that were refused or failed, by reason', [
    'reason',
  ]);
  readonly #domains = this.#gauge('domains', 'Domains that are there', ['readable']);
  readonly #unknown = this.#gauge('layouts_unknown', 'Domains whose kernel has no known layout');
  readonly #unreadable = this.#gauge('domain_errors', 'Domains that could not be read, by reason', [
    'reason',
  ]);
  readonly #held = this.#gauge('held_processes', 'Processes that are held', ['domain']);
  readonly #count = this.#gauge('processes', 'Processes that were seen', ['domain']);
  readonly #domainShare = this.#gauge('domain_cpu_share', 'CPUs that the processes of a domain used', [
    'domain',
  ]);
  readonly #overstated = this.#gauge(
    'domain_claims_too_much',
    'Whether a guest claims more CPU time than the host saw its vCPUs use',
    ['domain'],
  );
  readonly #share = this.#gauge(
    'process_cpu_share',
    'Part of one CPU that a process used; the busiest only',
    ['domain', 'pid', 'comm'],
  );

  readonly #waits: WaitSeries;
  /** Only where there is a fleet. */
  #fleet: FleetSeries | undefined;

  constructor(options: MetricsOptions = {}) {
    this.#processes = options.processes ?? DEFAULT_PROCESSES;
    const help = 'Time that processes were ready and did not run, by who had the CPU; the largest only';
    this.#waits = new WaitSeries(
      this.#counter('wait_seconds_total', help, ['victim', 'culprit']),
      this.#processes,
    );
    if (!options.withoutOwn) collectDefaultMetrics({ register: this.#registry });
  }

  /** The `Content-Type` of {@link text}. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** All metrics in the text format of Prometheus. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  tick(tick: Tick): void {
    this.#ticks.inc();
    this.#missed.inc(positive(tick.missed));
    if (tick.early) this.#early.inc();
    if (tick.sentinel !== undefined) {
      this.#sentinelLooks.inc(positive(tick.sentinel.looks));
      this.#sentinelTime.inc(positive(tick.sentinel.ms) / 1000);
    }
    this.#tickTime.observe(positive(tick.tookMs) / 1000);
    this.#lastTick.set(positive(Date.parse(tick.time)) / 1000);
    this.#unwritable.set(tick.journal === undefined ? 0 : 1);
    this.#problems.reset();
    for (const { code, domain = '', message } of problemsOf(tick).slice(0, MOST_DOMAINS))
      this.#problems.set({ code, domain, message }, 1);
    for (const action of tick.actions) this.#action(action);
    if (tick.waits !== undefined) this.#waits.add(tick.waits, positive(tick.ms));
    if (tick.fleet !== undefined) {
      this.#fleet ??= new FleetSeries(this.#registry);
      this.#fleet.set(tick.fleet);
    }
    this.#look(tick.domains, positive(tick.elapsedMs) * 1e6);
  }

  get wantsWaits(): boolean {
    return this.#processes > 0;
  }

  async close(): Promise<void> {
    this.#registry.clear();
  }

  #action({ action, outcome, code, techniques, pausedUs }: TickAction): void {
    const technique = techniques.join('+') || 'none';
    this.#edits.inc({ action, technique, outcome });
    if (outcome !== 'done') this.#refusals.inc({ reason: code ?? 'unknown' });
    if (pausedUs > 0) this.#paused.observe({ action }, positive(pausedUs) / 1e6);
  }

  #look(domains: readonly TickDomain[], elapsedNs: number): void {
    const gauges = [
      this.#unreadable,
      this.#held,
      this.#count,
      this.#domainShare,
      this.#overstated,
      this.#share,
    ];
    for (const gauge of gauges) gauge.reset();
    const errors = domains.flatMap(({ error }) => (error === undefined ? [] : [error.code]));
    this.#domains.set({ readable: 'yes' }, domains.length - errors.length);
    this.#domains.set({ readable: 'no' }, errors.length);
    this.#unknown.set(errors.filter((code) => code === 'layout-unknown').length);
    for (const reason of errors) this.#unreadable.inc({ reason });
    const share = (ranNs: number) => (elapsedNs > 0 ? positive(positive(ranNs) / elapsedNs) : 0);
    for (const [i, { name, processes, overstated }] of domains.entries()) {
      const domain = i < MOST_DOMAINS ? name : OTHERS;
      this.#count.inc({ domain }, processes.length);
      this.#overstated.inc({ domain }, overstated ? 1 : 0);
      this.#held.inc({ domain }, processes.filter(({ held }) => held !== undefined).length);
      const ranNs = processes.reduce((sum, process) => sum + positive(process.ranNs), 0);
      this.#domainShare.inc({ domain }, share(ranNs));
    }
    if (this.#processes === 0) return;
    const busiest = domains
      .flatMap(({ name, processes }) =>
        processes
          .filter(({ ranNs }) => ranNs > 0)
          .map(({ pid, comm, ranNs }) => ({ name, pid, comm, ranNs })),
      )
      .sort((a, b) => b.ranNs - a.ranNs)
      .slice(0, this.#processes);
    for (const { name, pid, comm, ranNs } of busiest)
      this.#share.set({ domain: name, pid, comm }, share(ranNs));
  }

  #counter<T extends string = never>(name: string, help: string, labelNames: readonly T[] = []): Counter<T> {
    return new Counter({ name: `domsched_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #gauge<T extends string = never>(name: string, help: string, labelNames: readonly T[] = []): Gauge<T> {
    return new Gauge({ name: `domsched_${name}`, help, labelNames, registers: [this.#registry] });
  }

  #histogram<T extends string = never>(
    name: string,
    help: string,
    buckets: number[],
    labelNames: readonly T[] = [],
  ): Histogram<T> {
    const registers = [this.#registry];
    return new Histogram({ name: `domsched_${name}`, help, buckets, labelNames, registers });
  }
}

/** Protects our counters from values that a guest made up: none is ever infinite, whatever is added to it. */
function positive(value: number): number {
  return Number.isFinite(value) && value > 0 ? Math.min(value, Number.MAX_SAFE_INTEGER) : 0;
}
