import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import type { QueueWords } from '../guest/queue-words.ts';
import type { Alert } from '../policy/alert.ts';
import { APART_MS, type FirstSighting, gapAfter, judge, type Sighting } from '../policy/sighting.ts';
import { Backoff } from './backoff.ts';
import type { Tracker } from './tracker.ts';

/** The sentinel's looks take at most this part of a CPU; more saved up than this counts for nothing, in ms. */
const MOST_PART = 0.03;
const SAVED_MS = 0.5;
/** When somebody was seen once, the next look comes after so many ms: a timer takes whole ones, and no look before is proof. */
const NEAR_MS = Math.ceil(APART_MS);

/** A domain that a sentinel may look at. */
export interface Watchable {
  readonly id: string;
  readonly guest: Pick<Guest, 'queueWords' | 'pidOf' | 'domain'> | undefined;
  readonly tracker: Pick<Tracker, 'viewOf'> | undefined;
}

/** Tasks by which domains were roused. */
export type Roused = ReadonlyMap<string, readonly number[]>;

/** What the sentinel did since the last tick. */
export interface SentinelWork {
  readonly looks: number;
  /** CPU time that they took. */
  readonly ms: number;
}

interface Post {
  readonly domain: Watchable;
  readonly words: QueueWords;
  first: FirstSighting | undefined;
  /** Whether a task on a CPU counts: nothing new is known of it until the next tick. */
  readonly counts: Map<number, boolean>;
}

interface SentinelOptions {
  /** Brings the next tick forward. */
  readonly hurry: () => void;
  /** Monotonic, in ms. */
  readonly now: () => number;
  /** CPU time of this thread, in ms. */
  readonly ownTime: () => number;
  /** Calls after some ms. @returns a function that cancels it */
  readonly later: (ms: number, call: () => void) => () => void;
}

/**
 * Looks between two ticks which tasks are on the CPUs of the guests, and brings the next tick forward when somebody has
 * begun to run for whom others are to be held. It decides nothing: the tick looks at everything, as any other does.
 *
 * What it costs is bounded whatever guests do: its looks by a part of a CPU, the ticks that it brings forward by number and
 * by a part of the time ({@link gapAfter}), and a domain for which that was in vain is left out for a while, each time for
 * longer.
 */
export class Sentinel {
  readonly #options: SentinelOptions;
  readonly #vain = new Backoff(1_000, 60_000);
  #posts: Post[] = [];
  #alert: Alert | undefined;
  #periodMs = 0;
  #cancel: (() => void) | undefined;
  /** CPU time that looks may take now, in ms. */
  #creditMs = SAVED_MS;
  #creditedMs = -Infinity;
  /** No tick is brought forward before this. */
  #notBeforeMs = -Infinity;
  #roused = new Map<string, readonly number[]>();
  #work = { looks: 0, ms: 0 };

  constructor(options: SentinelOptions) {
    this.#options = options;
  }

  /** Stops looking. @returns why this tick was brought forward, empty if it was not; and what was done meanwhile */
  stop(): { readonly roused: Roused; readonly work: SentinelWork } {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#posts = [];
    const roused = this.#roused;
    const work = this.#work;
    this.#roused = new Map();
    this.#work = { looks: 0, ms: 0 };
    return { roused, work };
  }

  /** Learns how the tick ended that {@link stop} began: how long it took, and whether anybody is to be held for it. */
  learn(roused: Roused, tookMs: number, helped: boolean): void {
    if (roused.size === 0) return;
    const nowMs = this.#options.now();
    this.#notBeforeMs = nowMs + gapAfter(tookMs);
    for (const id of roused.keys()) {
      if (helped) this.#vain.succeed(id);
      else this.#vain.fail(id, nowMs);
    }
  }

  /** Looks at these domains every so many ms until {@link stop}. */
  start(domains: Iterable<Watchable>, alert: Alert, periodMs: number): void {
    this.stop();
    this.#periodMs = periodMs;
    const nowMs = this.#options.now();
    for (const domain of domains) {
      if (domain.guest === undefined || !(alert.domains?.has(domain.id) ?? true)) continue;
      if (!this.#vain.allows(domain.id, nowMs)) continue;
      const words = quietly(() => domain.guest!.queueWords());
      if (words !== undefined) this.#posts.push({ domain, words, first: undefined, counts: new Map() });
    }
    this.#alert = alert;
    this.#wait(periodMs);
  }

  #wait(ms: number): void {
    if (this.#posts.length > 0) this.#cancel = this.#options.later(ms, () => this.#look());
  }

  #look(): void {
    const { now, ownTime, hurry } = this.#options;
    const begin = ownTime();
    const nowMs = now();
    const mayHurry = nowMs >= this.#notBeforeMs;
    let isNear = false;
    this.#posts = this.#posts.filter((post) => {
      const tasks = quietly(() => {
        post.words.read();
        return post.words.tasks();
      });
      // The next tick finds out what became of it.
      if (tasks === undefined) return false;
      const seen = this.#sighting(post, tasks);
      const { first, roused } = judge(post.first, seen, nowMs);
      post.first = first;
      // Also when this look came too soon after the first: a timer has whole milliseconds.
      if (seen !== undefined && first !== undefined) isNear = true;
      if (roused) this.#roused.set(post.domain.id, seen!.tasks);
      return true;
    });
    const tookMs = ownTime() - begin;
    this.#work.looks += 1;
    this.#work.ms += tookMs;
    this.#creditMs = Math.min(SAVED_MS, this.#creditMs + MOST_PART * (nowMs - this.#creditedMs)) - tookMs;
    this.#creditedMs = nowMs;
    if (this.#roused.size > 0 && mayHurry) {
      hurry();
      return;
    }
    this.#roused.clear();
    const wanted = isNear && mayHurry ? Math.min(NEAR_MS, this.#periodMs) : this.#periodMs;
    this.#wait(Math.max(wanted, -this.#creditMs / MOST_PART));
  }

  #sighting(post: Post, tasks: readonly number[]): Sighting | undefined {
    const counting = tasks.filter((task) => {
      let counts = post.counts.get(task);
      if (counts === undefined) {
        counts = this.#counts(post.domain, task);
        post.counts.set(task, counts);
      }
      return counts;
    });
    if (counting.length === 0) return undefined;
    const times = quietly(() => post.domain.guest?.domain.hostClock?.read());
    return { tasks: counting, awakeNs: times?.map(({ ranNs, waitedNs }) => ranNs + waitedNs) };
  }

  #counts({ guest, tracker }: Watchable, task: number): boolean {
    const pid = guest?.pidOf(task);
    const view = pid === undefined ? undefined : tracker?.viewOf(pid);
    // A task that is new since the last look may be anybody's.
    return view === undefined || this.#alert!.counts(view);
  }
}

/** @returns undefined if a domain failed meanwhile, which the next tick finds too */
function quietly<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof DomschedError) return undefined;
    throw error;
  }
}
