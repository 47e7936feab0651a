/**
 * What a policy sees and what it may ask for. No addresses, no kernel structures and no hypervisor here: a policy is
 * a pure function from a {@link World} to {@link Action}s, and a test of it is a literal.
 */

/** A process of a domain at one tick. */
export interface ProcessView {
  /** Tells it from every other process of the host, ended ones included. Opaque: for comparison only. */
  readonly key: string;
  /** Id and name of its domain. */
  readonly domain: string;
  readonly domainName: string;
  readonly pid: number;
  readonly ppid: number;
  /** Name, safe to print. */
  readonly comm: string;
  /** User id, path of the cgroup (v2, from its root) and command line, where this guest's kernel lets us read them. */
  readonly uid?: number;
  readonly cgroup?: string;
  readonly commandLine?: string;
  /** As the guest has it at this look; a held process is `held` whatever its kernel calls it. */
  readonly state: 'running' | 'ready' | 'sleeping' | 'parked' | 'held' | 'stopped' | 'ended';
  /** -20 to 19. */
  readonly nice: number;
  readonly kernelThread: boolean;
  /** CPU time since its start, and the part of it that fell between the last tick and this one, in ns. */
  readonly cpuNs: number;
  readonly ranNs: number;
  /** For a held process: how long it has been held without a break, in ms. */
  readonly heldMs?: number;
}

/** A domain at one tick. */
export interface DomainView {
  readonly id: string;
  readonly name: string;
  readonly vcpus: number;
  /** Share that the hypervisor gives it; absent where the hypervisor has none to change. */
  readonly weight?: number;
  /** Percent of one CPU; 0 is none. */
  readonly cap?: number;
  readonly processes: readonly ProcessView[];
}

/**
 * All domains at one tick. One that cannot be read goes on as before for a moment; then it is missing, and nothing is
 * known of it.
 */
export interface World {
  /** Monotonic, in ms; of no meaning but by difference. */
  readonly nowMs: number;
  /** Wall-clock time, for time windows. */
  readonly date: Date;
  /** Since the last tick, in ms. */
  readonly elapsedMs: number;
  readonly domains: readonly DomainView[];
  /**
   * Keys of the processes that this policy is to decide on. The others are there to be looked at: what it asks of them
   * is dropped.
   */
  readonly subjects: ReadonlySet<string>;
}

/** What a policy wants of one process or domain until it says otherwise: levels, not events. */
export type Action =
  | { readonly type: 'hold'; readonly process: string; readonly reason: string }
  | { readonly type: 'nice'; readonly process: string; readonly nice: number; readonly reason: string }
  | { readonly type: 'weight'; readonly domain: string; readonly weight: number; readonly reason: string }
  | { readonly type: 'cap'; readonly domain: string; readonly cap: number; readonly reason: string };

/**
 * Decides for one tick. What is not asked for again is undone: a held process that no action names is released, a nice
 * value or weight that was changed is put back.
 * @template Memory what the policy carries from tick to tick (plain data); undefined at the first, when a daemon before
 *   us may have held some of the subjects for reasons that nobody knows any more
 */
export type Policy<Memory = unknown> = (world: World, memory: Memory | undefined) => Decision<Memory>;

export interface Decision<Memory = unknown> {
  readonly actions: readonly Action[];
  readonly memory?: Memory;
}
