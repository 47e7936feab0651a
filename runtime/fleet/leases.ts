import type { DomainView } from '../policy/world.ts';
import { keyOf } from './activity.ts';
import type { ActivityMessage } from './message.ts';

/** Most hosts that are kept in mind: a forger of names may take our time but not our memory. */
export const MOST_HOSTS = 10_000;
/** What a host said counts for this many of its leases. */
const LEASES = 2;

/** What is known of another host. */
export interface HeardHost {
  readonly host: string;
  /** `silent`: it was at work and has not been heard for two leases. */
  readonly state: 'active' | 'at rest' | 'silent';
  /** When it was last heard, by the clock of whoever heard it, in ms. */
  readonly heardMs: number;
  readonly message: ActivityMessage;
}

/**
 * What other hosts said, for as long as it counts. All times are the receiver's own monotonic clock: no message has one.
 */
export class Leases {
  readonly #hosts = new Map<string, HeardHost>();

  /** @returns why it was not taken: an older word of the same run, say */
  hear(host: string, message: ActivityMessage, nowMs: number): 'old' | 'too many hosts' | undefined {
    const had = this.#hosts.get(host);
    if (had?.message.run === message.run && message.seq <= had.message.seq) return 'old';
    if (had === undefined && this.#hosts.size >= MOST_HOSTS && !this.#forgetOne()) return 'too many hosts';
    this.#hosts.delete(host);
    this.#hosts.set(host, { host, state: stateAfter(message), heardMs: nowMs, message });
    return undefined;
  }

  /** Ends what has not been said again. @returns hosts that have fallen silent */
  expire(nowMs: number): string[] {
    const silent: string[] = [];
    for (const [host, heard] of this.#hosts) {
      if (heard.state !== 'active' || nowMs - heard.heardMs < LEASES * heard.message.leaseMs) continue;
      this.#hosts.set(host, { ...heard, state: 'silent' });
      silent.push(host);
    }
    return silent;
  }

  /** What other hosts than these said no longer counts. */
  keep(isMinded: (host: string) => boolean): void {
    for (const host of this.#hosts.keys()) if (!isMinded(host)) this.#hosts.delete(host);
  }

  get(host: string): HeardHost | undefined {
    return this.#hosts.get(host);
  }

  all(): HeardHost[] {
    return [...this.#hosts.values()];
  }

  /** Whether anybody else is at work. */
  get isActive(): boolean {
    return this.all().some(({ state }) => state === 'active');
  }

  /** Makes room: by the host at rest, or silent, that was heard least recently. */
  #forgetOne(): boolean {
    const found = this.all().find(({ state }) => state !== 'active');
    return found !== undefined && this.#hosts.delete(found.host);
  }
}

export function stateAfter({ rests, classes }: ActivityMessage): 'active' | 'at rest' {
  return rests || classes.length === 0 ? 'at rest' : 'active';
}

/** Other hosts' activity as policies see it: each host is a domain that nothing can be done to. */
export function remoteDomains(hosts: readonly HeardHost[], elapsedMs: number): DomainView[] {
  return hosts
    .filter(({ state }) => state === 'active')
    .map(({ host, message }) => {
      const id = `fleet:${host}`;
      return {
        id,
        name: host,
        vcpus: 0,
        elsewhere: true as const,
        processes: message.classes.map(({ matched, first, share, waits, who }) => ({
          key: `${id} ${keyOf({ matched, first })}`,
          domain: id,
          domainName: `${host}/${who.domain}`,
          pid: first ? 1 : Math.max(2, who.pid),
          ppid: 0,
          comm: who.comm,
          // Its host saw it wait at two looks, and policies count it from their second look on.
          state: waits ? ('ready' as const) : ('sleeping' as const),
          nice: 0,
          kernelThread: false,
          cpuNs: 0,
          ranNs: share * elapsedMs * 1e6,
          elsewhere: { host, matched: new Set(matched) },
        })),
      };
    });
}
