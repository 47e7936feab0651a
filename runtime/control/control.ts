import type { AccountSample } from '../blame/sample.ts';
import type { FleetStatus } from '../fleet/status.ts';
import type { Learned } from '../guest/identify/types.ts';
import type { Process } from '../guest/process.ts';
import type { ShareEntry } from '../hypervisor/share.ts';
import type { DomainState } from '../hypervisor/types.ts';
import type { Ways } from '../surgeon/ways.ts';
import type { Tick } from '../tick/tick.ts';
import type { Options } from './schema.ts';

/** A process without its address in the guest's memory, which callers do not need. */
export interface ProcessRow extends Omit<Process, 'address' | 'suspects'> {
  /** For a held process: the policy that holds it, `operator`, or `unknown`. */
  readonly heldBy?: string;
  /** Name of the domain that it is in. */
  readonly domain: string;
}

/** A failure in one domain: `code` of {@link DomschedError}, and its message. */
export interface Failure {
  readonly domain: string;
  readonly code: string;
  readonly message: string;
}

export interface PsAnswer {
  readonly rows: readonly ProcessRow[];
  /** One entry for each domain that could not be read. */
  readonly errors: readonly Failure[];
  /** Notes on the processes shown. */
  readonly notes: readonly string[];
}

/** One line of `domains --json`. Its keys are stable. */
export interface DomainEntry {
  readonly domain: string;
  readonly id: string;
  readonly hypervisor: string;
  readonly connection: string;
  readonly state: DomainState | null;
  readonly vcpus: number | null;
  readonly memoryBytes: number | null;
  /** `uname -r` of the guest; null when it was not identified. */
  readonly kernel: string | null;
  readonly buildId: string | null;
  /** The guest whose memory the layout was read from, and when; null for a layout from a file. */
  readonly layoutFrom: Learned | null;
  /** Schedulers that the layout has. */
  readonly schedulers: readonly string[] | null;
  /** Ways to hold its processes, with a reason for each impossible one; null when it was not identified. */
  readonly ways: Ways | null;
  /** Why there is no layout, or why the domain cannot be looked at. */
  readonly error: { readonly code: string; readonly message: string } | null;
  /** Why it stands still by a pause of domsched that nobody is about to end, and what to do; null if it does not. */
  readonly standing: string | null;
}

/** Answer of `hold`, `release` and `renice`. */
export interface EditAnswer {
  readonly domain: string;
  readonly pid: number;
  readonly comm: string;
  readonly outcome: string;
  readonly techniques: readonly string[];
  readonly attempts: number;
  readonly pausedUs: number;
  readonly writes: number;
  /** Structures of ended tasks that could not be freed; absent when there were none. */
  readonly kept?: number;
  /** For a group: the pids of all its processes. */
  readonly members?: readonly number[];
  /** The writes that a dry run planned. */
  readonly planned: readonly string[];
}

export interface ReleaseAllAnswer {
  readonly released: readonly EditAnswer[];
  /** `ended` is set where the machine has ended and nothing was held in it. */
  readonly failures: readonly (Failure & { readonly ended?: true })[];
  /** Notes on what was found or done without a record of it. */
  readonly notes: readonly string[];
}

/** Ticks until the signal, and their source. */
export interface Ticks extends AsyncIterable<Tick> {
  readonly source: 'daemon' | 'sampler';
}

export interface TicksOptions {
  readonly signal: AbortSignal;
  /** Interval between looks in ms; a daemon has its own. */
  readonly intervalMs: number;
}

/**
 * Everything that can be asked about the machines of this host. Either the daemon attached to them answers, or this
 * process. Every method throws a {@link DomschedError}.
 */
export interface Control extends AsyncDisposable {
  ps(options?: Options<'ps'>): Promise<PsAnswer>;
  domains(): Promise<readonly DomainEntry[]>;
  hold(options: Options<'hold'>): Promise<EditAnswer>;
  release(options: Options<'release'>): Promise<EditAnswer>;
  /** Puts back everything that is held or changed. A failure does not keep the rest from being put back. */
  releaseAll(options?: Options<'releaseAll'>): Promise<ReleaseAllAnswer>;
  renice(options: Options<'renice'>): Promise<EditAnswer>;
  /** Sets the given parts of a domain's share and returns all of it. */
  share(options: Options<'share'>): Promise<ShareEntry>;
  /** Reads the accounts of the host and of all guests once. Nothing is paused. */
  accounts(): Promise<AccountSample>;
  /** Yields one tick per look at all domains. Throws `host-unreachable` when the daemon ends. */
  ticks(options: TicksOptions): Ticks;
}

export interface DaemonStatus {
  readonly version: string;
  readonly pid: number;
  readonly intervalMs: number;
  readonly ticks: number;
  readonly domains: readonly {
    readonly id: string;
    readonly name: string;
    readonly attached: boolean;
    readonly held: number;
  }[];
}

/** Methods that only a daemon has. */
export interface DaemonControl extends Control {
  status(): Promise<DaemonStatus>;
  /** How this host stands in its fleet; null without a fleet. */
  fleet(): Promise<FleetStatus | null>;
  /** Reads the configuration again. */
  reload(): Promise<void>;
}
