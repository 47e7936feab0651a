import type { Tick, TickAction, TickDomain, TickFleet, TickFleetHost, TickProcess } from '../tick/tick.ts';

/** The first line of a trace, and of each of its parts. */
export interface TraceHeader {
  readonly format: 'domsched-trace/1';
  readonly producer: { readonly name: 'domsched'; readonly version: string };
  /** Distinguishes this trace's parts from those of another. */
  readonly id: string;
  /** Counts from 1: a trace that reaches its limit continues in another file. */
  readonly part: number;
  /** Who recorded it: the daemon, or `domsched trace` itself. */
  readonly source: 'daemon' | 'sampler';
  /** On which host: its name in the fleet, or its own. Absent in traces of earlier versions. */
  readonly host?: string;
  /** When the trace began, ISO 8601. */
  readonly started: string;
}

/** A property that is optional in `T` is null in a line when it disappeared. */
type Delta<T> = { readonly [K in keyof T]?: T[K] | (undefined extends T[K] ? null : never) };

/** What changed in a process since the previous line; everything if it is new. Without `ranNs` it did not run. */
export type ProcessLine = Pick<TickProcess, 'key'> & Delta<Omit<TickProcess, 'key'>>;

/** What changed in a domain. */
export type DomainLine = Pick<TickDomain, 'id'> &
  Delta<Omit<TickDomain, 'id' | 'processes'>> & {
    /** Processes that changed or ran. */
    readonly processes?: readonly ProcessLine[];
    /** Keys of processes that ended. */
    readonly gone?: readonly string[];
  };

/** What changed in what is known of the fleet. */
export type FleetLine = Delta<Omit<TickFleet, 'heard'>> & {
  /** Hosts of {@link TickFleet.heard} that are new or changed. */
  readonly heard?: readonly TickFleetHost[];
  /** Names of hosts that are there no longer. */
  readonly gone?: readonly string[];
};

/**
 * A {@link Tick} as the difference from the previous one. Most processes sleep through most ticks, so a line takes a
 * few hundredths of the tick.
 */
export interface TickLine extends Omit<Tick, 'domains' | 'actions' | 'fleet'> {
  /** A reader may start here: nothing before this line matters. */
  readonly full?: true;
  /** Ticks before this one that could not be written because the disk was too slow. */
  readonly dropped?: number;
  readonly domains: readonly DomainLine[];
  /** Ids of domains that no longer exist. */
  readonly gone?: readonly string[];
  readonly actions: readonly TickAction[];
  /** Null if there is no fleet any longer. */
  readonly fleet?: FleetLine | null;
}
