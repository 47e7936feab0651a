import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { DomschedError } from '../error.ts';
import type { Fleet, Interest } from '../fleet/fleet.ts';
import { LOOK_LIMITS, type LookLimits, ownTimeMs } from '../guest/look-budget.ts';
import type { Hosts } from '../hypervisor/connect.ts';
import { placeOf } from '../hypervisor/connect-value.ts';
import { type KnownKernel, knownKernels } from '../layout/registry.ts';
import type { Alert } from '../policy/alert.ts';
import { type CombinedMemory, type combine, type NamedAction, NOTHING_YET } from '../policy/combine.ts';
import { resumeAccounts, saveAccounts } from '../policy/saved-accounts.ts';
import type { DomainView } from '../policy/world.ts';
import { Journals } from '../surgeon/journaled-surgeon.ts';
import type { Technique } from '../technique/step.ts';
import type { Observer, Tick, TickDomain } from '../tick/tick.ts';
import { TickClock } from '../tick/tick-clock.ts';
import { Ticker } from '../tick/ticker.ts';
import { Accounts } from '../watch/accounts.ts';
import type { DomainContext } from '../watch/attached-domain.ts';
import { choose } from '../watch/choose.ts';
import { OPERATOR } from '../watch/hold.ts';
import { Lane } from '../watch/lane.ts';
import { type Left, leftOf, withoutTwins } from '../watch/left.ts';
import { Sentinel } from '../watch/sentinel.ts';
import { domainOfKey } from '../watch/tracker.ts';
import { WatchedDomain } from '../watch/watched-domain.ts';
import { AccountBook, type SavedBook } from './account-book.ts';
import { lastingNames } from './lasting-names.ts';
import { Overload } from './overload.ts';
import { Waits } from './waits.ts';

/** What a configuration means for the daemon; replaced as a whole on reload. */
export interface Settings {
  readonly intervalMs: number;
  /** Interval while nothing runs anywhere, in ms. */
  readonly idleIntervalMs: number;
  /** Time between two looks of the sentinel, in ms; undefined for none. */
  readonly sentinelMs?: number | undefined;
  readonly discoveryMs: number;
  readonly techniques: readonly Technique[] | undefined;
  readonly decide: ReturnType<typeof combine>;
  /** Whether a selector needs users, control groups or command lines. */
  readonly origins: boolean;
  /** The most that a look at one domain may cost; defaults to {@link LOOK_LIMITS}. */
  readonly limits?: LookLimits;
  readonly hosts: Hosts;
  readonly observers: readonly Observer[];
  /** What other hosts are told of this one's processes is told by this. */
  readonly interest?: Interest;
  /** Absent without a fleet. */
  readonly fleet?: Fleet;
}

/** An operator's decision on one process; overrides every policy. */
export type Verdict = 'hold' | 'free';

/** Idle looks in a row before the daemon looks less often. */
const QUIET_TICKS = 4;
const ATTACH_WIDTH = 8;
/** How often a journal that could not be written is tried again, in ms. */
const PROBE_MS = 2_000;
/** Time to put everything back, for all domains together, in ms. */
const RESTORE_LIMIT_MS = 45_000;

/** Watches all domains, decides at every tick and starts the edits. */
export class Daemon {
  readonly verdicts = new Map<string, Verdict>();
  readonly domains = new Map<string, WatchedDomain>();
  /** Of the host; for whoever asks. */
  readonly accounts = new Accounts();
  readonly #waits = new Waits(new Accounts());
  readonly log: Logger;
  /** Monotonic, in ms. */
  readonly now: () => number;
  readonly #context: DomainContext;
  #settings: Settings;
  #memory: CombinedMemory | undefined;
  readonly #book: AccountBook;
  /** What the daemon before left; `read` until it is known, undefined once it was used. */
  #left: 'read' | SavedBook | undefined = 'read';
  /** The policies were replaced and have no memory: do not act on their first decision. */
  #isNew = false;
  #known: Promise<readonly KnownKernel[]> | undefined;
  #ticker: Ticker;
  readonly #sentinel: Sentinel;
  #alert: Alert | undefined;
  /** By a process's key, the host elsewhere for whose activity policies hold it. */
  #heldFor: ReadonlyMap<string, string> = new Map();
  readonly #clock: TickClock;
  #discoveredMs = -Infinity;
  #quiet = 0;
  #last: Tick | undefined;
  /** Domains whose claims exceed what the host saw, as far as the log has been told. */
  #overstated: ReadonlySet<string> = new Set();
  /** Why nothing can be written down, as far as the log has been told. */
  #unwritable: DomschedError | undefined;
  /** When that was told first, ISO 8601. */
  #unwritableSince = '';
  #probedMs = -Infinity;
  readonly #onTick: (tick: Tick) => void;

  /** @param onTick receives every tick, as the observers of the settings do */
  constructor(
    settings: Settings,
    log: Logger,
    onTick: (tick: Tick) => void = () => {},
    journals = new Journals(),
    now: () => number = () => performance.now(),
  ) {
    this.now = now;
    this.#clock = new TickClock(now);
    this.#settings = settings;
    this.log = log;
    this.#onTick = onTick;
    this.#ticker = new Ticker(settings.intervalMs, now);
    this.#sentinel = new Sentinel({
      hurry: () => this.#ticker.hurry(),
      now,
      ownTime: ownTimeMs,
      later: (ms, call) => {
        const timer = setTimeout(call, ms);
        return () => clearTimeout(timer);
      },
    });
    this.#book = new AccountBook(journals, log, now);
    this.#book.load().then((book) => {
      this.#left = book;
    });
    this.#context = {
      log,
      journals,
      now,
      attaching: new Lane(ATTACH_WIDTH),
      known: () => this.#knownKernels(),
      techniques: settings.techniques,
      origins: settings.origins,
      limits: settings.limits ?? LOOK_LIMITS,
    };
  }

  get settings(): Settings {
    return this.#settings;
  }

  /** The last tick; undefined before the first. */
  get last(): Tick | undefined {
    return this.#last;
  }

  /** Ticks until the signal aborts; leaves all holds in place. */
  async run(signal: AbortSignal): Promise<void> {
    const overload = new Overload(this.log);
    for await (const missed of this.#ticker.ticks(signal)) {
      overload.add(missed, this.now());
      this.tick(missed);
    }
    this.#sentinel.stop();
  }

  /** Watches until the next tick what could change its decisions. */
  #watch(): void {
    const { sentinelMs } = this.#settings;
    const alert = this.#alert;
    if (sentinelMs === undefined || alert === undefined) return;
    // An operator's word on them stands.
    if ([...alert.loose].every((key) => this.verdicts.has(key))) return;
    // Of those that claim too much a look between two ticks tells nothing.
    const honest = [...this.domains.values()].filter(({ id }) => !this.#overstated.has(id));
    this.#sentinel.start(honest, alert, sentinelMs);
    // One at a time: each costs as much as a look.
    for (const key of alert.loose) if (this.domains.get(domainOfKey(key))?.prepare(key)) break;
  }

  /** One tick: looks at all domains, decides and starts edits. Never waits. */
  tick(missed = 0): void {
    const { roused, work } = this.#sentinel.stop();
    if (roused.size > 0) this.log.debug({ domains: [...roused.keys()] }, 'a look was brought forward');
    const { nowMs, elapsedMs } = this.#clock.begin();
    this.#discover(nowMs);
    const watched = [...this.domains.values()];
    const views: DomainView[] = [];
    let quiet = true;
    for (const domain of watched) {
      const look = domain.look(nowMs, roused.get(domain.id));
      if (look.view !== undefined) views.push(look.view);
      quiet &&= look.quiet;
    }
    const isUnknown = watched.some((domain) => domain.isUnknown(nowMs));
    if (!isUnknown) this.#resume();
    const { fleet, decide, intervalMs: wholeMs } = this.#settings;
    const elsewhere = fleet?.domains(Math.max(elapsedMs, wholeMs)) ?? [];
    const decided = decide(
      { nowMs, date: new Date(), elapsedMs, intervalMs: wholeMs, domains: [...views, ...elsewhere] },
      this.#memory,
      isUnknown ? holdsOf(watched) : [],
    );
    this.#memory = decided.memory;
    this.#heldFor = heldFor(decided.actions, elsewhere);
    fleet?.listen(decided.asked);
    fleet?.tell(decided.believed, elapsedMs);
    if (fleet?.isActive) quiet = false;
    const { alert } = decided;
    const helped = [...(this.#alert?.loose ?? [])].some((key) => !alert?.loose.has(key));
    this.#alert = alert;
    if (this.#left === undefined && this.#book.isDue) void this.#save();
    this.#warn(decided.overstated);
    this.#tellJournal(nowMs);
    const actions = this.#overrule(decided.actions, watched);
    const isNew = this.#isNew;
    this.#isNew = false;
    for (const { id } of isNew ? [] : views) {
      const domain = this.domains.get(id)!;
      const own = actions.get(id) ?? [];
      if (domain.adjust(own, nowMs)) quiet = false;
    }
    this.#quiet = quiet ? this.#quiet + 1 : 0;
    const { intervalMs, idleIntervalMs } = this.#settings;
    this.#ticker.intervalMs = this.#quiet >= QUIET_TICKS ? idleIntervalMs : intervalMs;
    const early = roused.size > 0 && { early: true as const };
    const tookMs = this.#tell(
      nowMs,
      { missed, ...early, ...(work.looks > 0 && { sentinel: work }) },
      watched,
    );
    this.#sentinel.learn(roused, tookMs, helped);
    this.#watch();
  }

  /** Replaces the configuration. Holds stay until the next tick decides. */
  reload(settings: Settings): void {
    this.#settings = settings;
    this.#memory = undefined;
    this.#isNew = true;
    this.#known = undefined;
    this.#quiet = 0;
    this.#discoveredMs = -Infinity;
    this.#ticker.intervalMs = settings.intervalMs;
    this.#context.techniques = settings.techniques;
    this.#context.origins = settings.origins;
    for (const [key, verdict] of this.verdicts) if (verdict === 'free') this.verdicts.delete(key);
  }

  /**
   * Puts everything back within {@link RESTORE_LIMIT_MS}.
   * @returns what is left in the watched domains: processes that guests still hold, records of the journals, and
   *   domains that could not be asked
   */
  async restore(): Promise<Left[]> {
    // Told to end before its first tick, it answers for what an earlier daemon holds all the same.
    if (this.#discoveredMs === -Infinity) this.#discover(this.now());
    const late = new AbortController();
    // If there is no domain, nothing else awaits this promise and would catch its abort.
    const limit = sleep(RESTORE_LIMIT_MS, undefined, { signal: late.signal, ref: false }).catch(() => {});
    const each = [...this.domains.values()].map(({ id }) => this.#restore(id, limit));
    const found = await Promise.all(each);
    late.abort();
    const written = await leftOf(this.#context.journals, new Set(this.domains.keys()));
    return withoutTwins([...written, ...found.flat()]);
  }

  async #restore(id: string, limit: Promise<void>): Promise<Left[]> {
    const unknown: Left[] = [{ domain: id, what: 'unknown' }];
    const restored = this.domains
      .get(id)!
      .restore()
      .catch((error: unknown) => {
        this.log.error({ err: error, domain: id }, 'could not be put back');
        return unknown;
      });
    return Promise.race([restored, limit.then(() => unknown)]);
  }

  /** Resolves when no domain is being attached to or edited. */
  async settled(): Promise<void> {
    await this.#book.settled();
    await Promise.all([...this.domains.values()].map((domain) => domain.settled()));
  }

  async close(): Promise<void> {
    await this.#book.settled();
    await Promise.allSettled([...this.domains.values()].map((domain) => domain.close()));
    await this.#settings.fleet?.close();
    await this.#settings.hosts.close();
  }

  /**
   * Finds a domain by name or id.
   * @param connect `--connect` values that the domain must come from; any if empty
   * @throws DomschedError `domain-not-found`, `domain-ambiguous`
   */
  find(name: string, connect: readonly string[] = []): WatchedDomain {
    const found = choose(this.behind(connect), name, (domain) => domain);
    if (found !== undefined) return found;
    throw new DomschedError('domain-not-found', `the daemon has no domain ${name}`, { domain: name });
  }

  /** Domains that come from these `--connect` values. */
  behind(connect: readonly string[]): WatchedDomain[] {
    const present = [...this.domains.values()].filter((domain) => !domain.absent);
    if (connect.length === 0) return present;
    // Options after a comma say how to attach, not what to attach to.
    const places = connect.map(placeOf);
    return present.filter(({ id, identity }) => {
      const place = identity && placeOf(identity.connection);
      return places.some((wanted) => wanted === place || wanted.endsWith(`:${id.replaceAll(',', ',,')}`));
    });
  }

  #overrule(decided: readonly NamedAction[], watched: readonly WatchedDomain[]): Map<string, NamedAction[]> {
    const actions = new Map<string, NamedAction[]>();
    const give = (domain: string, action: NamedAction) => {
      const own = actions.get(domain);
      if (own === undefined) actions.set(domain, [action]);
      else own.push(action);
    };
    for (const { tracker } of watched) {
      for (const [key, { policy }] of tracker?.holds ?? []) {
        // A command made this hold before the daemon started.
        if (policy === OPERATOR && !this.verdicts.has(key)) this.verdicts.set(key, 'hold');
      }
    }
    for (const action of decided) {
      if (!('process' in action)) give(action.domain, action);
      else if (!this.verdicts.has(action.process)) give(domainOfKey(action.process), action);
    }
    for (const [key, verdict] of this.verdicts) {
      if (verdict === 'free') continue;
      const reason = 'an operator asked for it';
      give(domainOfKey(key), { type: 'hold', process: key, policy: OPERATOR, reason });
    }
    return actions;
  }

  /** Goes on with the accounts of the daemon before, once it is known who is there. */
  #resume(): void {
    const left = this.#left;
    if (left === undefined || left === 'read') return;
    this.#left = undefined;
    const names = lastingNames(this.domains);
    const isSame = (domain: string) =>
      left.boots[domain] !== undefined && this.domains.get(domain)?.tracker?.boot === left.boots[domain];
    const { entries } = this.#settings.decide;
    this.#memory = resumeAccounts(entries, this.#memory ?? NOTHING_YET, left, names, isSame);
    this.log.info({ savedAt: left.savedAt }, 'accounts of the daemon before were taken over');
  }

  async #save(): Promise<void> {
    const { policies, guarantees } = saveAccounts(
      this.#settings.decide.entries,
      this.#memory ?? NOTHING_YET,
      lastingNames(this.domains),
    );
    const boots = [...this.domains].flatMap(([id, { tracker }]) =>
      tracker === undefined ? [] : [[id, tracker.boot]],
    );
    await this.#book.save({ boots: Object.fromEntries(boots), policies, guarantees } as SavedBook);
  }

  /** Logs once that a guest claims too much, and once that it does so no longer. */
  #warn(overstated: ReadonlySet<string>): void {
    for (const domain of overstated)
      if (!this.#overstated.has(domain))
        this.log.warn(
          { domain },
          'this guest claims more CPU time than the host saw its vCPUs use: its claims count only as far as the host confirms them',
        );
    for (const domain of this.#overstated)
      if (!overstated.has(domain))
        this.log.info({ domain }, 'the claims of this guest agree with what the host sees again');
    this.#overstated = overstated;
  }

  /** Logs once that nothing can be written down, and once that it can be again. */
  #tellJournal(nowMs: number): void {
    const { health } = this.#context.journals;
    if (health.failure !== undefined && nowMs - this.#probedMs >= PROBE_MS) {
      this.#probedMs = nowMs;
      if (this.#unwritable !== undefined) health.probe();
    }
    const { failure } = health;
    if (failure !== undefined && this.#unwritable === undefined) {
      this.#unwritableSince = new Date().toISOString();
      this.log.error(
        { code: failure.code, ...failure.details },
        `nothing is held or changed for now, and whoever is held can be let go: ${failure.message}`,
      );
    }
    if (failure === undefined && this.#unwritable !== undefined)
      this.log.info('the journal can be written again: holds and changes go on');
    this.#unwritable = failure;
  }

  #discover(nowMs: number): void {
    if (nowMs - this.#discoveredMs >= this.#settings.discoveryMs) {
      this.#discoveredMs = nowMs;
      const present = new Set<string>();
      for (const host of this.#settings.hosts.all) {
        for (const id of host.ids()) {
          present.add(id);
          if (this.domains.has(id)) continue;
          // A domain that is present at our start is not new: an earlier daemon may have decided about it.
          const knownMs = this.#last === undefined ? nowMs : -Infinity;
          this.domains.set(id, new WatchedDomain(host, id, this.#context, knownMs));
        }
      }
      for (const [id, domain] of this.domains) {
        if (present.has(id) || domain.guest !== undefined) continue;
        this.domains.delete(id);
        domain.close().catch((error: unknown) => this.log.warn({ err: error, domain: id }, 'closing'));
      }
    }
    for (const domain of this.domains.values()) void domain.attach(nowMs);
  }

  /** @returns how long the tick took, in ms */
  #tell(
    nowMs: number,
    about: Pick<Tick, 'missed' | 'early' | 'sentinel'>,
    watched: readonly WatchedDomain[],
  ): number {
    const actions = watched.flatMap(({ edits }) => edits.takeActions());
    const domains = watched
      .filter(({ absent }) => !absent)
      .map((domain) => ({
        ...withHosts(domain.describe(), this.#heldFor),
        ...(this.#overstated.has(domain.id) && { overstated: true as const }),
      }));
    const isWanted = this.#settings.observers.some(({ wantsWaits }) => wantsWaits);
    const { fleet } = this.#settings;
    const waits = isWanted ? this.#waits.look(watched, nowMs) : this.#waits.rest();
    const tick = this.#clock.end({
      ...about,
      domains,
      actions,
      ...(waits !== undefined && { waits }),
      ...(this.#unwritable && { journal: { ...failureOf(this.#unwritable), since: this.#unwritableSince } }),
      ...(fleet && { fleet: fleet.stateSince(this.#clock.startMs) }),
    });
    this.#last = tick;
    this.#onTick(tick);
    for (const observer of this.#settings.observers) {
      try {
        observer.tick(tick);
      } catch (error) {
        this.log.error({ err: error }, 'an observer failed');
      }
    }
    return tick.tookMs;
  }

  #knownKernels(): Promise<readonly KnownKernel[]> {
    this.#known ??= knownKernels();
    this.#known.catch(() => {
      this.#known = undefined;
    });
    return this.#known;
  }
}

function failureOf({ code, message }: DomschedError): { code: string; message: string } {
  return { code, message };
}

/** Present holds, as actions. */
function holdsOf(domains: readonly WatchedDomain[]): (NamedAction & { type: 'hold' })[] {
  return domains.flatMap(({ tracker }) =>
    [...(tracker?.holds ?? [])].map(([process, { policy, reason }]) => ({
      type: 'hold' as const,
      process,
      policy,
      reason,
    })),
  );
}

/** For which host's activity processes are to be held; a policy may name any, and only those that were heard count. */
function heldFor(actions: readonly NamedAction[], elsewhere: readonly DomainView[]): Map<string, string> {
  const hosts = new Set(elsewhere.map(({ name }) => name));
  return new Map(
    actions.flatMap((action) =>
      action.type === 'hold' && action.host !== undefined && hosts.has(action.host)
        ? [[action.process, action.host] as const]
        : [],
    ),
  );
}

function withHosts(domain: TickDomain, hosts: ReadonlyMap<string, string>): TickDomain {
  if (hosts.size === 0) return domain;
  const processes = domain.processes.map((process) => {
    const host = process.held && process.held.policy !== OPERATOR ? hosts.get(process.key) : undefined;
    return host === undefined ? process : { ...process, heldFor: host };
  });
  return { ...domain, processes };
}
