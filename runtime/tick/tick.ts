import type { ProcessView } from '../policy/world.ts';

/** Who holds a process, and why. */
export interface TickHold {
  readonly policy: string;
  readonly reason: string;
  /** ISO 8601. */
  readonly since: string;
}

export interface TickProcess
  extends Pick<
    ProcessView,
    'key' | 'pid' | 'ppid' | 'comm' | 'state' | 'nice' | 'kernelThread' | 'cpuNs' | 'ranNs'
  > {
  /** CPU on which it runs or last ran. */
  readonly cpu: number;
  readonly held?: TickHold;
  /** Host of the fleet whose activity its policy holds it for at this tick. */
  readonly heldFor?: string;
}

export interface TickDomain {
  readonly id: string;
  readonly name: string;
  /** `qemu`, `xen`, … */
  readonly hypervisor: string;
  /** Release of the kernel whose layout is used. */
  readonly kernel?: string;
  readonly vcpus: number;
  readonly weight?: number;
  readonly cap?: number;
  /** Its guest claims more CPU time than the host saw its vCPUs use: no policy takes its word for that. */
  readonly overstated?: true;
  /**
   * Why the domain could not be read at this tick: `code` and message of a {@link DomschedError}. Then no processes.
   */
  readonly error?: { readonly code: string; readonly message: string };
  readonly processes: readonly TickProcess[];
}

/** An edit that was tried at this tick, with its outcome. */
export interface TickAction {
  readonly domain: string;
  readonly action: 'hold' | 'release' | 'nice' | 'weight' | 'cap';
  /** The process's key, for an action on a process. */
  readonly key?: string;
  readonly pid?: number;
  readonly comm?: string;
  readonly policy: string;
  readonly reason: string;
  /** `code` of the {@link DomschedError} if it failed. */
  readonly outcome: 'done' | 'refused' | 'failed';
  readonly code?: string;
  readonly techniques: readonly string[];
  /** How long the domain was paused for it, in µs. */
  readonly pausedUs: number;
}

/** Time for which processes of one name were ready and did not run, since waits were last told, and because of whom. */
export interface TickWait {
  /** Name of the domain, and of its processes. */
  readonly domain: string;
  readonly comm: string;
  /** `kind` is `process`, `guest`, `machine`, `host`, `cap` or `unknown`; see runtime/blame/charge.ts. */
  readonly culprit: { readonly kind: string; readonly domain?: string; readonly comm?: string };
  readonly place: 'guest' | 'host';
  readonly ns: number;
}

/** The fleet's policy, as far as it is in force on this host. */
export interface TickFleetPolicy {
  /** Of the one in force; absent if there is none. `at` by the store's clock, ISO 8601. */
  readonly revision?: number;
  readonly at?: string;
  readonly by?: string;
  readonly comment?: string;
  /** It is the store's latest, as the store says. */
  readonly isCurrent: boolean;
  /** How long ago the store last said so, in ms, while it is away. */
  readonly ageMs?: number;
  /** The store's latest, which this host cannot use. */
  readonly refused?: { readonly revision: number; readonly why: string };
  /** Why the store does not answer, as far as is known; it may have an address, and ticks leave it out. */
  readonly error?: string;
}

/** Another host of the fleet, as it was heard last. */
export interface TickFleetHost {
  readonly host: string;
  /** `silent`: it was at work and has not been heard for two leases. */
  readonly state: 'active' | 'at rest' | 'silent';
  /** When it was last heard, in ms since the daemon started, by the clock of {@link Tick.ms}. */
  readonly heardMs: number;
  /** Revision of the fleet's policy that was in force there, if it said so. */
  readonly revision?: number;
  /** Its classes of processes, the busiest first: the busiest process of each, and its part of a CPU. */
  readonly classes: readonly {
    readonly domain: string;
    readonly comm: string;
    readonly share: number;
    readonly waits: boolean;
  }[];
}

/** How this host stands in its fleet. */
export interface TickFleet {
  readonly name: string;
  readonly connected: boolean;
  /** How long it has been connected, or cut off, in ms. */
  readonly sinceMs: number;
  /** Whether it hears others: not while nobody here could be held for them. */
  readonly listens: boolean;
  /** Of the hosts at work it hears some, which are enough for the policies here: the rest are not among `hosts`. */
  readonly few: boolean;
  /** Other hosts that were heard, and the names of those that have fallen silent while at work. */
  readonly hosts: number;
  readonly silent: readonly string[];
  /** Some of them: those that are at work or have fallen silent first. */
  readonly heard: readonly TickFleetHost[];
  /** Messages since the start; `refused` by reason. */
  readonly sent: number;
  readonly received: number;
  readonly refused: Readonly<Record<string, number>>;
  readonly policy: TickFleetPolicy;
}

/** All that one tick saw and did, as plain JSON: the input of metrics, the page, `top` and traces. */
export interface Tick {
  /** Counts from 1. */
  readonly tick: number;
  /** ISO 8601, and monotonic ms since the daemon started. */
  readonly time: string;
  readonly ms: number;
  /** Since the previous tick, in ms; 0 at the first. */
  readonly elapsedMs: number;
  /** How long reading and deciding took, in ms; edits may still run afterwards. */
  readonly tookMs: number;
  /** Ticks left out since the last one because that one took too long. */
  readonly missed: number;
  /** It was brought forward: somebody had begun to run for whom others are to be held. */
  readonly early?: true;
  /** Looks of the sentinel since the last tick, and the CPU time that they took, in ms; absent if there were none. */
  readonly sentinel?: { readonly looks: number; readonly ms: number };
  readonly domains: readonly TickDomain[];
  readonly actions: readonly TickAction[];
  /** At some ticks, and only if an observer wants them. */
  readonly waits?: readonly TickWait[];
  /** Why nothing is held or changed: it cannot be written down, and since when. Code and message of a {@link DomschedError}. */
  readonly journal?: { readonly code: string; readonly message: string; readonly since?: string };
  /** Absent without a fleet. */
  readonly fleet?: TickFleet;
}

/** Receives every tick. It must not throw and must not wait. */
export interface Observer {
  tick(tick: Tick): void;
  /** It makes something of {@link Tick.waits}, which take time to find out. */
  readonly wantsWaits?: boolean;
  close(): Promise<void>;
}
