import { randomBytes } from 'node:crypto';
import type { Msg, NatsConnection, Subscription } from '@nats-io/transport-node';
import type { Logger } from 'pino';
import { printable } from '../guest/text.ts';
import { matcher, type SelectorSpec } from '../policy/selector.ts';
import type { DomainView } from '../policy/world.ts';
import type { TickFleet, TickFleetHost } from '../tick/tick.ts';
import { type ActivityClass, aggregate, settle, type Told } from './activity.ts';
import { answerAsks, type FleetDuties } from './asks.ts';
import { Blames } from './blames.ts';
import { type FleetConfig, HOST_NAME } from './config.ts';
import { Hearing, type Minded } from './hearing.ts';
import { LayoutStore } from './layout-store.ts';
import { type HeardHost, remoteDomains } from './leases.ts';
import { connectionOptions, FleetLink, type LinkState } from './link.ts';
import { decode, encode, type Refusal } from './message.ts';
import { type CachedPolicy, PolicyCache } from './policy-cache.ts';
import { type ApplyPolicy, PolicyFollower } from './policy-follower.ts';
import type { FleetStatus } from './status.ts';

/** Where hosts say what they do: `domsched.activity.<host>`. */
const ACTIVITY = 'domsched.activity';
/** A class is told again this many leases after it was told. */
const AGAIN = 1;
/** At most one change in so many ms; what happens in between is told together. */
const LEAST_MS = 200;
const MOST_ACTIVITY = 5;
/** Most hosts that a tick has. */
const MOST_SEEN = 200;
/** For so long after its last use a subscription stays: what comes and goes is heard of at once then. */
const LINGER_MS = 60_000;
/** No question of a policy. */
const AT_FIRST = '';
const NOBODY: ReadonlySet<string> = new Set();

/** @throws DomschedError `config-invalid` for credentials or certificates that cannot be used */
export function checkFleet(config: FleetConfig): void {
  connectionOptions(config);
}

/** What the last start of this host in this fleet left. */
export function cachedPolicy(config: FleetConfig): CachedPolicy | undefined {
  return new PolicyCache(config).read();
}

/** What policies look at, to sum up this host's activity by it. */
export interface Interest extends Minded {
  readonly selectors: readonly SelectorSpec[];
  readonly thresholds: readonly number[];
}

/** This host's place in the fleet: says what it does, and knows what others say. Nothing here waits for the server. */
export class Fleet {
  readonly config: FleetConfig;
  /** Only if the configuration wants them. */
  readonly layouts: LayoutStore | undefined;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #link: FleetLink;
  readonly #hearing: Hearing;
  readonly #follower: PolicyFollower;
  #duties: FleetDuties | undefined;
  readonly #blames: Blames;
  readonly #run = randomBytes(9).toString('base64url');
  readonly #refused = new Map<Refusal, { count: number; last: string }>();
  #interest: Interest = { selectors: [], thresholds: [] };
  #match: ReturnType<typeof matcher>;
  #waiting: ReadonlySet<string> = new Set();
  #told: Told = new Map();
  #seq = 0;
  #saidMs = -Infinity;
  /** There is something that others have not been told. */
  #owes = false;
  #received = 0;
  /** By what policies ask of others: when somebody was here last about whom they do. At first all are heard. */
  readonly #mindedMs = new Map([[AT_FIRST, Infinity]]);
  /** By the last token of their subjects. */
  readonly #subscriptions = new Map<string, Subscription>();
  /** What they are made of. */
  #wanted = NOBODY;
  #listens = true;
  /** The latest connection, which may be cut off now. */
  #open: NatsConnection | undefined;

  /** @throws DomschedError `config-invalid` for credentials or certificates that cannot be used */
  constructor(
    config: FleetConfig,
    log: Logger,
    now: () => number = () => performance.now(),
    cache = new PolicyCache(config),
  ) {
    this.config = config;
    this.#follower = new PolicyFollower(cache, log);
    this.#log = log;
    this.#now = now;
    this.#match = matcher([], config.name);
    this.#hearing = new Hearing(config.lease * 1000);
    this.#blames = new Blames(
      config.name,
      async () => (await this.#duties?.accounts()) ?? { ms: performance.now(), threads: [], domains: [] },
    );
    this.#link = new FleetLink(
      connectionOptions(config),
      now,
      (connection) => this.#listen(connection),
      (state) => this.#changed(state),
    );
    const connected = async () => {
      await this.#link.tried;
      return this.#link.connection;
    };
    this.layouts = config.layouts ? new LayoutStore(config.name, connected, log) : undefined;
  }

  /** Says by which selectors this host's processes are told apart from now on. */
  watch(interest: Interest): void {
    this.#interest = interest;
    this.#hearing.watch(interest, this.#now());
    // What these policies ask is known when they have decided.
    this.#mindedMs.clear();
    if (this.#listens) this.#mindedMs.set(AT_FIRST, Infinity);
    this.#subscribe();
    this.#match = matcher(interest.selectors, this.config.name);
  }

  /** The fleet's policy that is in force here; at first what the last start left. */
  get policy(): CachedPolicy | undefined {
    return this.#follower.inForce;
  }

  /** From now on the fleet's policy is put in force, and operators are answered. */
  serve(apply: ApplyPolicy, duties: FleetDuties): void {
    this.#duties = duties;
    this.#follower.follow(apply);
  }

  /** What other hosts do, as domains that policies see. */
  domains(elapsedMs: number): DomainView[] {
    for (const host of this.#hearing.look(this.#now()))
      this.#log.warn({ host }, 'this host has not been heard for two leases: going on without it');
    this.#subscribe();
    return remoteDomains(this.#hearing.hosts, elapsedMs);
  }

  /** Whether another host is at work. */
  get isActive(): boolean {
    return this.#hearing.isActive;
  }

  /**
   * Hears others from now on, or no longer, a while after nobody here could be held for them. So what a host at work says
   * goes to those that have something to hold, and not to all; what began before is heard within a lease.
   * @param minds what policies ask of others now, about their subjects here (`runtime/policy/combine.ts`)
   */
  listen(minds: ReadonlySet<string>): void {
    const nowMs = this.#now();
    for (const name of minds) this.#mindedMs.set(name, nowMs);
    for (const [name, lastMs] of this.#mindedMs) {
      if (lastMs === Infinity) this.#mindedMs.set(name, nowMs);
      else if (nowMs - lastMs >= LINGER_MS) this.#mindedMs.delete(name);
    }
    const listens = this.#mindedMs.size > 0;
    if (this.#listens && listens) this.#hearing.ask(new Set(this.#mindedMs.keys()), nowMs);
    else if (this.#listens !== listens) {
      this.#listens = listens;
      this.#hearing.forget(nowMs);
      this.#hearing.ask(new Set(this.#mindedMs.keys()), nowMs);
    }
    this.#subscribe();
  }

  /** Tells others what this host's domains did since the last look, if it is something new. */
  tell(domains: readonly DomainView[], elapsedMs: number): void {
    const nowMs = this.#now();
    const { thresholds } = this.#interest;
    const looked = aggregate(domains, elapsedMs, this.#match, thresholds, this.#waiting);
    this.#waiting = looked.waiting;
    const { told, changed } = settle(this.#told, looked.classes, nowMs);
    this.#told = told;
    this.#owes ||= changed;
    const sinceMs = nowMs - this.#saidMs;
    const isDue = told.size > 0 && sinceMs >= AGAIN * this.#leaseMs;
    if (isDue || (this.#owes && sinceMs >= LEAST_MS)) this.#say();
  }

  get state(): TickFleet {
    return this.stateSince(0);
  }

  /** @param startMs when the reader's time began, by this room's clock, in ms */
  stateSince(startMs: number): TickFleet {
    const { connected, sinceMs } = this.#link.state;
    const { hosts } = this.#hearing;
    const { error: _, ...policy } = this.#follower.state;
    return {
      name: this.config.name,
      connected,
      sinceMs: this.#now() - sinceMs,
      listens: this.#listens,
      few: this.#hearing.isEnough,
      hosts: hosts.length,
      silent: hosts.filter(({ state }) => state === 'silent').map(({ host }) => host),
      heard: heardHosts(hosts, startMs),
      sent: this.#seq,
      received: this.#received,
      refused: Object.fromEntries([...this.#refused].map(([reason, { count }]) => [reason, count])),
      policy,
    };
  }

  status(): FleetStatus {
    const { connected, sinceMs, server = null, error = null } = this.#link.state;
    const nowMs = this.#now();
    return {
      name: this.config.name,
      connected,
      sinceMs: nowMs - sinceMs,
      server,
      error,
      leaseMs: this.#leaseMs,
      listens: this.#listens,
      few: this.#hearing.isEnough,
      listensTo: this.#hearing.named ?? null,
      policy: this.#follower.state,
      layouts: this.layouts?.counts ?? null,
      hosts: this.#hearing.hosts.map(({ host, state, heardMs, message }) => ({
        host,
        state,
        heardMs: nowMs - heardMs,
        activity: busiest(message.classes).map(({ who, share }) => ({
          domain: who.domain,
          comm: who.comm,
          share,
        })),
      })),
      refused: [...this.#refused].map(([reason, { count, last }]) => ({ reason, count, last })),
    };
  }

  /** How many words of hosts that were heard before and after did not arrive. */
  get lost(): number {
    return this.#hearing.lost;
  }

  /** Until the server has taken all that was said, and what this host wants to hear. */
  async settled(): Promise<void> {
    await this.#link.connection?.flush();
  }

  /** Tells others that nobody is to wait for this host, and ends. */
  async close(): Promise<void> {
    this.#told = new Map();
    this.#say();
    this.#blames.close();
    this.#follower.down();
    await this.#link.close();
  }

  get #leaseMs(): number {
    return this.config.lease * 1000;
  }

  #say(): void {
    const connection = this.#link.connection;
    if (connection === undefined) return;
    const classes = [...this.#told.values()].map(({ told }) => told).sort((a, b) => b.share - a.share);
    this.#seq++;
    const message = {
      run: this.#run,
      seq: this.#seq,
      leaseMs: this.#leaseMs,
      rests: classes.length === 0,
      revision: this.#follower.state.revision,
      classes,
    };
    try {
      connection.publish(`${ACTIVITY}.${this.config.name}`, encode(message));
    } catch {
      // It was lost just now: everything is said when it is back.
      return;
    }
    this.#saidMs = this.#now();
    this.#owes = false;
  }

  #listen(connection: NatsConnection): void {
    this.#subscriptions.clear();
    this.#wanted = NOBODY;
    this.#open = connection;
    this.#subscribe();
    const duties = {
      checkPolicy: (policy: string) => this.#duties?.checkPolicy(policy) ?? [],
      processes: async () => (await this.#duties?.processes()) ?? { rows: [], errors: [] },
    };
    answerAsks(connection, this.config.name, duties, this.#blames);
  }

  /** Makes what is subscribed what is to be heard. Subscriptions of a connection outlive a lost server. */
  #subscribe(): void {
    const open = this.#open;
    if (open === undefined || open.isClosed()) return;
    const wanted = this.#listens ? this.#hearing.subjects : NOBODY;
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    // What is wanted from now on comes first: no word is passed by meanwhile.
    for (const host of wanted) {
      if (host === this.config.name || this.#subscriptions.has(host)) continue;
      const subscription = open.subscribe(`${ACTIVITY}.${host}`, {
        callback: (error, message) => {
          if (error === null) this.hear(message);
        },
      });
      this.#subscriptions.set(host, subscription);
    }
    for (const [host, subscription] of this.#subscriptions) {
      if (wanted.has(host)) continue;
      this.#subscriptions.delete(host);
      // What the server passes on before it knows is heard: it may be the last word of one that is wanted by name now.
      void subscription.drain().catch(() => {});
    }
  }

  /** Takes a message of another host, which may hold anything. */
  hear({ subject, data }: Pick<Msg, 'subject' | 'data'>): void {
    this.#received++;
    const refusal = this.#take(subject, data);
    if (refusal !== undefined) this.#refuse(refusal, printable(hostOf(subject)).slice(0, 64));
  }

  #take(subject: string, data: Uint8Array): Refusal | undefined {
    const host = hostOf(subject);
    // A server delivers out of a stream, too, to whatever subject a host wants: by the subject under which it is stored.
    if (host === this.config.name || host === subject) return 'not from its host';
    if (!HOST_NAME.test(host)) return 'not readable';
    if (!this.#listens) return undefined;
    const message = decode(data);
    if (typeof message === 'string') return message;
    const taken = this.#hearing.hear(host, message, this.#now());
    this.#subscribe();
    return taken === 'old' ? undefined : taken;
  }

  #refuse(reason: Refusal, host: string): void {
    const count = (this.#refused.get(reason)?.count ?? 0) + 1;
    this.#refused.set(reason, { count, last: host });
    if (count === 1) this.#log.warn({ host, reason }, 'a message of another host was not taken');
  }

  #changed({ connected, server, error }: LinkState): void {
    if (connected) {
      this.#log.info({ server }, 'connected to the fleet');
      this.#hearing.resume(this.#now());
      // Others may have gone on without this host.
      this.#owes = this.#told.size > 0;
      this.#follower.up(this.#link.connection!);
      return;
    }
    this.#follower.down();
    this.#log.warn(
      { error },
      'cut off from the fleet: what others said counts for two leases, then this host goes on by itself',
    );
  }
}

/** Who said it; the whole of it if it is no subject of a host. */
function hostOf(subject: string): string {
  return subject.startsWith(`${ACTIVITY}.`) ? subject.slice(ACTIVITY.length + 1) : subject;
}

const PLACES = { silent: 0, active: 1, 'at rest': 2 } as const;

/** Other hosts for whoever looks at ticks. */
function heardHosts(hosts: readonly HeardHost[], startMs: number): TickFleetHost[] {
  const few =
    hosts.length <= MOST_SEEN
      ? hosts
      : hosts.toSorted((a, b) => PLACES[a.state] - PLACES[b.state]).slice(0, MOST_SEEN);
  return few.map(({ host, state, heardMs, message: { revision, classes } }) => ({
    host,
    state,
    heardMs: Math.round(heardMs - startMs),
    ...(revision !== undefined && { revision }),
    classes: busiest(classes).map(({ who, share, waits }) => ({
      domain: who.domain,
      comm: who.comm,
      share,
      waits,
    })),
  }));
}

function busiest(classes: readonly ActivityClass[]): ActivityClass[] {
  return classes.toSorted((a, b) => b.share - a.share).slice(0, MOST_ACTIVITY);
}
