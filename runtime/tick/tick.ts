import type { ProcessView } from '../policy/world.ts';

/** Who is held, and why. */
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
  /** CPU that it runs on or ran on last. */
  readonly cpu: number;
  readonly held?: TickHold;
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
  /** The domain could not be read at this tick: `code` of {@link DomschedError}, and its message. Then no processes. */
  readonly error?: { readonly code: string; readonly message: string };
  readonly processes: readonly TickProcess[];
}

/** An edit that was tried at this tick, and how it went. */
export interface TickAction {
  readonly domain: string;
  readonly action: 'hold' | 'release' | 'nice' | 'weight' | 'cap';
  /** Of the process, where the action is on one. */
  readonly key?: string;
  readonly pid?: number;
  readonly comm?: string;
  readonly policy: string;
  readonly reason: string;
  /** `code` of {@link DomschedError} when it failed. */
  readonly outcome: 'done' | 'refused' | 'failed';
  readonly code?: string;
  readonly techniques: readonly string[];
  /** Time that the domain was paused for it, in µs. */
  readonly pausedUs: number;
}

/** All that one tick saw and did: what metrics, the page, `top` and a trace are made of. Plain JSON. */
export interface Tick {
  /** Counts from 1. */
  readonly tick: number;
  /** ISO 8601, and monotonic ms since the daemon started. */
  readonly time: string;
  readonly ms: number;
  /** Since the tick before, in ms; 0 at the first. */
  readonly elapsedMs: number;
  /** How long reading and deciding took, in ms; edits may go on after. */
  readonly tookMs: number;
  /** Ticks that were left out since the last because the one before was not over. */
  readonly missed: number;
  readonly domains: readonly TickDomain[];
  readonly actions: readonly TickAction[];
}

/** Something that is told of every tick. It must not throw and must not wait. */
export interface Observer {
  tick(tick: Tick): void;
  close(): Promise<void>;
}
