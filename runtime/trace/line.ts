import type { Tick, TickAction, TickDomain, TickProcess } from '../tick/tick.ts';

/** The first line of a trace, and of every part of one. */
export interface TraceHeader {
  readonly format: 'domsched-trace/1';
  readonly producer: { readonly name: 'domsched'; readonly version: string };
  /** Tells the parts of one trace from those of another. */
  readonly id: string;
  /** Counts from 1: a trace that outgrows its limit goes on in another file. */
  readonly part: number;
  /** Who looked: the daemon, or `domsched trace` itself. */
  readonly source: 'daemon' | 'sampler';
  /** When the trace began, ISO 8601. */
  readonly started: string;
}

/** What may be absent of `T` is null in a line when it went. */
type Delta<T> = { readonly [K in keyof T]?: T[K] | (undefined extends T[K] ? null : never) };

/** What changed of a process since the line before; all of it when it is new. Without `ranNs` it did not run. */
export type ProcessLine = Pick<TickProcess, 'key'> & Delta<Omit<TickProcess, 'key'>>;

/** What changed of a domain. */
export type DomainLine = Pick<TickDomain, 'id'> &
  Delta<Omit<TickDomain, 'id' | 'processes'>> & {
    /** Those that changed or ran. */
    readonly processes?: readonly ProcessLine[];
    /** Keys of those that ended. */
    readonly gone?: readonly string[];
  };

/**
 * A {@link Tick} as the difference to the one before. Most processes of a host sleep through most ticks, so a
 * line is a few hundredths of the tick.
 */
export interface TickLine extends Omit<Tick, 'domains' | 'actions'> {
  /** Nothing before this line matters: a reader may begin here. */
  readonly full?: true;
  /** Ticks before this one that could not be written: the disk was too slow. */
  readonly dropped?: number;
  readonly domains: readonly DomainLine[];
  /** Ids of domains that are there no longer. */
  readonly gone?: readonly string[];
  readonly actions: readonly TickAction[];
}
