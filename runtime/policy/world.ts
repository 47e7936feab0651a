/**
 * What a policy sees and what it may ask for. There are no addresses, kernel structures or hypervisors here: a policy
 * is a pure function from a {@link World} to {@link Action}s, so its test is a literal.
 */

/** What tells apart what another host of the fleet says of its processes: a host can be read, another one only believed. */
export interface Elsewhere {
  /** Name of that host. */
  readonly host: string;
  /** Names of the selectors that match there, see `selectorName`. */
  readonly matched: ReadonlySet<string>;
}

/** A process of a domain at one tick; with `elsewhere`, processes of another host that the same selectors match. */
export interface ProcessView {
  /** Unique among all processes of the host, ended ones included. Opaque: only for comparison. */
  readonly key: string;
  /** Id and name of its domain. */
  readonly domain: string;
  readonly domainName: string;
  readonly pid: number;
  readonly ppid: number;
  /** Name, safe to print. */
  readonly comm: string;
  /** User id, path of the cgroup (v2, from its root) and command line, if this guest's kernel lets us read them. */
  readonly uid?: number;
  readonly cgroup?: string;
  readonly commandLine?: string;
  /** The guest's state at this look, except that a held process is `held` whatever its kernel calls it. */
  readonly state: 'running' | 'ready' | 'sleeping' | 'parked' | 'held' | 'stopped' | 'ended';
  /** -20 to 19. */
  readonly nice: number;
  readonly kernelThread: boolean;
  /** CPU time since its start, and the part of it since the last tick, in ns. */
  readonly cpuNs: number;
  readonly ranNs: number;
  /** Time that its threads spent in their guest's run queues since the last tick, in ns; absent if its kernel does not tell. */
  readonly waitedNs?: number;
  /** CPU of its guest on which it runs or last ran. */
  readonly cpu?: number;
  /** How long a held process has been held without a break, in ms. */
  readonly heldMs?: number;
  readonly elsewhere?: Elsewhere;
  /** One of its threads was on a CPU at several looks just before this one, and the host saw the vCPUs run meanwhile. */
  readonly roused?: true;
}

/** What the host itself saw of a domain's vCPUs since the last look at it. */
export interface HostView {
  readonly elapsedMs: number;
  /** How long each vCPU ran, and how long it waited for a CPU of the host, in ns. None: nothing runs (a dump). */
  readonly vcpus: readonly { readonly ranNs: number; readonly waitedNs: number }[];
}

/** A domain at one tick. */
export interface DomainView {
  readonly id: string;
  readonly name: string;
  readonly vcpus: number;
  /** Share that the hypervisor gives it; absent if it cannot be changed. */
  readonly weight?: number;
  /** Percent of one CPU; 0 means no cap. */
  readonly cap?: number;
  /** Absent if the host does not tell. */
  readonly host?: HostView;
  /** On another host of the fleet: nothing can be done to it, and it shares no CPU with this host's domains. */
  readonly elsewhere?: true;
  readonly processes: readonly ProcessView[];
}

/** All domains at one tick. An unreadable domain is shown unchanged for a moment, then left out. */
export interface World {
  /** Monotonic, in ms; only differences have a meaning. */
  readonly nowMs: number;
  /** Wall-clock time, for time windows. */
  readonly date: Date;
  /** Since the last tick, in ms. */
  readonly elapsedMs: number;
  /** What it is most of the time: the tick may have been brought forward, and the next one may not be. */
  readonly intervalMs?: number;
  readonly domains: readonly DomainView[];
  /**
   * Keys of the processes that this policy decides about. It sees the others too, but actions on them are dropped, and on
   * those elsewhere.
   */
  readonly subjects: ReadonlySet<string>;
}

/** The world of no policy in particular. */
export type Observed = Omit<World, 'subjects'>;

/** How long a whole interval is, which the next one will be, in ms. */
export function wholeMs({ elapsedMs, intervalMs = 0 }: Pick<World, 'elapsedMs' | 'intervalMs'>): number {
  return Math.max(elapsedMs, intervalMs);
}

/** What a policy wants for one process or domain until it says otherwise: a level, not an event. */
export type Action =
  /** `host`: the host elsewhere whose activity it is held for. */
  | { readonly type: 'hold'; readonly process: string; readonly reason: string; readonly host?: string }
  /** Stands for a hold that its domain's guarantee ends; no policy asks for it. */
  | { readonly type: 'run'; readonly process: string; readonly reason: string }
  | { readonly type: 'nice'; readonly process: string; readonly nice: number; readonly reason: string }
  | { readonly type: 'weight'; readonly domain: string; readonly weight: number; readonly reason: string }
  | { readonly type: 'cap'; readonly domain: string; readonly cap: number; readonly reason: string };

/**
 * Decides for one tick. Whatever is not asked for again is undone: a held process that no action names is released, and
 * a changed nice value or weight is restored.
 * @template Memory the policy's plain data from tick to tick; undefined at the first tick, when subjects may be held by
 *   an earlier daemon for unknown reasons
 */
export type Policy<Memory = unknown> = (world: World, memory: Memory | undefined) => Decision<Memory>;

export interface Decision<Memory = unknown> {
  readonly actions: readonly Action[];
  readonly memory?: Memory;
}
