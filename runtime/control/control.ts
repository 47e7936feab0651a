import type { Learned } from '../guest/identify/types.ts';
import type { Process } from '../guest/process.ts';
import type { ShareEntry } from '../hypervisor/share.ts';
import type { DomainState } from '../hypervisor/types.ts';
import type { Ways } from '../surgeon/ways.ts';
import type { Tick } from '../tick/tick.ts';
import type { Options } from './schema.ts';

/** A process for those who look: where it is in the guest's memory is nobody's business. */
export interface ProcessRow extends Omit<Process, 'address'> {
  /** Name of the domain that it is in. */
  readonly domain: string;
}

/** Something that could not be done in one domain: `code` of {@link DomschedError}, and its message. */
export interface Failure {
  readonly domain: string;
  readonly code: string;
  readonly message: string;
}

export interface PsAnswer {
  readonly rows: readonly ProcessRow[];
  /** Of domains that could not be read, with their names. */
  readonly errors: readonly Failure[];
  /** What to know of what is shown. */
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
  /** Whose memory its layout was read from, and when; null for one from a file. */
  readonly layoutFrom: Learned | null;
  /** Schedulers that its layout has. */
  readonly schedulers: readonly string[] | null;
  /** Ways in which its processes can be held, and why not in the others; null when it was not identified. */
  readonly ways: Ways | null;
  /** Why there is no layout, or why the domain cannot be looked at. */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/** What `hold`, `release` and `renice` answer. */
export interface EditAnswer {
  readonly domain: string;
  readonly pid: number;
  readonly comm: string;
  readonly outcome: string;
  readonly techniques: readonly string[];
  readonly attempts: number;
  readonly pausedUs: number;
  readonly writes: number;
  /** Structures of ended tasks that nobody could free; absent when there were none. */
  readonly kept?: number;
  /** Of a group: the pids of all its processes. */
  readonly members?: readonly number[];
  /** The words of a dry run. */
  readonly planned: readonly string[];
}

export interface ReleaseAllAnswer {
  readonly released: readonly EditAnswer[];
  /** With `ended` where the machine has ended, and nobody was held in it. */
  readonly failures: readonly (Failure & { readonly ended?: true })[];
  /** What was found and done that nobody had written down. */
  readonly notes: readonly string[];
}

/** Ticks until the signal, and who looked. */
export interface Ticks extends AsyncIterable<Tick> {
  readonly source: 'daemon' | 'sampler';
}

export interface TicksOptions {
  readonly signal: AbortSignal;
  /** How often to look, in ms; a daemon has its own interval. */
  readonly intervalMs: number;
}

/**
 * All that can be asked about the machines of this host, whoever answers: the daemon that is attached to them, or
 * ourselves. Every method throws what went wrong as a {@link DomschedError}.
 */
export interface Control extends AsyncDisposable {
  ps(options?: Options<'ps'>): Promise<PsAnswer>;
  domains(): Promise<readonly DomainEntry[]>;
  hold(options: Options<'hold'>): Promise<EditAnswer>;
  release(options: Options<'release'>): Promise<EditAnswer>;
  /** Puts everything back that is held or changed. One that fails does not keep the others from being put back. */
  releaseAll(options?: Options<'releaseAll'>): Promise<ReleaseAllAnswer>;
  renice(options: Options<'renice'>): Promise<EditAnswer>;
  /** Sets what is given of a domain's share, and tells all of it. */
  share(options: Options<'share'>): Promise<ShareEntry>;
  /** One for every look at all domains. Throws `host-unreachable` when the daemon ends. */
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

/** What a daemon answers besides. */
export interface DaemonControl extends Control {
  status(): Promise<DaemonStatus>;
  /** Reads the configuration again. */
  reload(): Promise<void>;
}
