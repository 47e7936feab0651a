import type { TickFleetPolicy } from '../tick/tick.ts';

/** Another host, as it was heard. */
export interface FleetHost {
  readonly host: string;
  readonly state: 'active' | 'at rest' | 'silent';
  /** When it was last heard, in ms before now. */
  readonly heardMs: number;
  /** What of it is at work, the busiest first: domain, process and part of a CPU. */
  readonly activity: readonly { readonly domain: string; readonly comm: string; readonly share: number }[];
}

/** How a host stands in its fleet, as it says itself. */
export interface FleetStatus {
  readonly name: string;
  readonly connected: boolean;
  /** How long it has been connected, or cut off, in ms. */
  readonly sinceMs: number;
  readonly server: string | null;
  /** Why it is cut off, as far as is known. */
  readonly error: string | null;
  readonly leaseMs: number;
  /** Whether it hears others: not while nobody here could be held for them. */
  readonly listens: boolean;
  /** Of the hosts at work it hears some, which are enough for the policies here: the rest are not among `hosts`. */
  readonly few: boolean;
  /** The only hosts that its policies can hold somebody for, if they name each; null if it may be any. */
  readonly listensTo: readonly string[] | null;
  readonly policy: TickFleetPolicy;
  /** Layouts of kernels since the start; null if the configuration wants none. */
  readonly layouts: { readonly taken: number; readonly given: number; readonly refused: number } | null;
  readonly hosts: readonly FleetHost[];
  /** Messages that were not taken, by reason, and from whom the last one came. */
  readonly refused: readonly { readonly reason: string; readonly count: number; readonly last: string }[];
}
