import type { ProcessView } from '../policy/world.ts';
import { type HeardHost, Leases, remoteDomains, stateAfter } from './leases.ts';
import type { ActivityMessage } from './message.ts';

/** What a policy asks of all others about some of its subjects: whether one works for which they are held. */
export interface WorkQuestion {
  /** By which policies say whether they ask it now, as they have such subjects (`runtime/policy/combine.ts`). */
  readonly name: string;
  /**
   * Whether a process of another host is enough to hold them all, whoever else is at work. Its CPU time is that of
   * {@link QUESTION_MS}.
   */
  readonly isAnsweredBy: (process: ProcessView) => boolean;
}

/** What of other hosts can change a decision here. */
export interface Minded {
  /** The only hosts whose activity can; any when left out. */
  readonly hosts?: readonly string[];
  /**
   * With these, what others than `hosts` do changes nothing for whoever knows of a host that answers each of those that are
   * asked.
   */
  readonly questions?: readonly WorkQuestion[];
}

/** Time over which the CPU time of a process in a question is, in ms. */
export const QUESTION_MS = 1_000;
/** Of so many that answer each question, all are heard: what a small fleet does is known in full. */
export const MANY = 64;
/** Of more, so many for each question are heard. */
export const WITNESSES = 8;
/** Once fewer of those answer, others are looked for. */
export const FEW = 4;
/** Who is at work says so once in a lease; after so many leases without a word it is not counted upon. */
const DOUBT = 1.25;
const ALL = '*';

/**
 * Whom a host listens to, and what it knows of them. A policy that waits until nobody works asks of all others no more
 * than whether one of them does. So once many do, a few of them are heard and the rest are not: a word then goes to those
 * who count upon its host, and not to every host of the fleet. When those become few, all are heard until there are
 * enough again.
 *
 * Who is not heard may be at work all the same. So when the last that is known rests before all others were heard for a
 * lease, in which each of them at work says something, its rest counts after that lease only. Silence counts as ever.
 */
export class Hearing {
  readonly #leases = new Leases();
  readonly #leaseMs: number;
  readonly #random: () => number;
  #minded: Minded = {};
  /** Which of the questions are asked now. */
  #asked: readonly number[] = [];
  /** For each host at work that answers any question, which of them. */
  readonly #answers = new Map<string, readonly boolean[]>();
  /** The hosts that are heard; undefined for all. */
  #chosen: ReadonlySet<string> | undefined;
  /** Those that were chosen before, while others are looked for. */
  #before: ReadonlySet<string> | undefined;
  #allSinceMs = 0;
  #subjects: ReadonlySet<string> = new Set([ALL]);
  #lost = 0;
  /** Last words that do not count yet. */
  readonly #putOff = new Map<string, { readonly message: ActivityMessage; readonly heardMs: number }>();

  constructor(leaseMs: number, random: () => number = Math.random) {
    this.#leaseMs = leaseMs;
    this.#random = random;
  }

  /** Last tokens of the subjects to listen to: the same set until they are others. */
  get subjects(): ReadonlySet<string> {
    return this.#subjects;
  }

  /** Only some of the hosts at work are heard, as they are enough. */
  get isEnough(): boolean {
    return this.#chosen !== undefined;
  }

  get hosts(): HeardHost[] {
    return this.#leases.all();
  }

  /** Whether anybody else is at work. */
  get isActive(): boolean {
    return this.#leases.isActive;
  }

  /** Other hosts are of interest from now on: what was heard of the rest no longer counts. */
  watch(minded: Minded, nowMs: number): void {
    this.#minded = minded;
    this.#asked = [...(minded.questions ?? []).keys()];
    this.#hear(undefined, nowMs);
    this.#settle(nowMs);
    this.#keepNamed();
    this.#answers.clear();
    for (const heard of this.#leases.all()) this.#note(heard);
  }

  /** From now on these questions alone are asked, until {@link watch}: of others nobody here could be the subject. */
  ask(names: ReadonlySet<string>, nowMs: number): void {
    const questions = this.#minded.questions ?? [];
    const asked = [...questions.keys()].filter((each) => names.has(questions[each]!.name));
    if (asked.join() === this.#asked.join()) return;
    const wasNamed = this.named !== undefined;
    this.#asked = asked;
    if (wasNamed !== (this.named !== undefined)) this.#hear(undefined, nowMs);
    this.#choose(nowMs);
    this.#settle(nowMs);
    this.#keepNamed();
  }

  /** The only hosts that are heard, since those are all that policies name; undefined if it may be any. */
  get named(): readonly string[] | undefined {
    return this.#asked.length === 0 ? this.#minded.hosts : undefined;
  }

  /** Nothing that was heard counts any longer. */
  forget(nowMs: number): void {
    this.#keep(() => false);
    this.#hear(undefined, nowMs);
  }

  /** There is a server again: nothing was heard without one. */
  resume(nowMs: number): void {
    this.#allSinceMs = nowMs;
  }

  /** How many words of hosts that were heard before and after did not arrive. */
  get lost(): number {
    return this.#lost;
  }

  /** @returns why it was not taken */
  hear(host: string, message: ActivityMessage, nowMs: number): 'old' | 'too many hosts' | undefined {
    // It was said before the server knew that we do not listen to it any longer.
    if (!this.#subjects.has(ALL) && !this.#subjects.has(host)) return undefined;
    const had = this.#putOff.get(host)?.message ?? this.#leases.get(host)?.message;
    if (had?.run === message.run) {
      if (message.seq <= had.seq) return 'old';
      this.#lost += message.seq - had.seq - 1;
    }
    if (this.#isLast(host, message, nowMs)) {
      this.#putOff.set(host, { message, heardMs: nowMs });
      return undefined;
    }
    const refusal = this.#take(host, message, nowMs);
    if (refusal === undefined) {
      this.#putOff.delete(host);
      this.#choose(nowMs);
      this.#settle(nowMs);
    }
    return refusal;
  }

  /** Ends what has not been said again, and what was put off. @returns hosts that have fallen silent */
  look(nowMs: number): string[] {
    const silent = this.#leases.expire(nowMs).filter((host) => {
      this.#answers.delete(host);
      return !this.#putOff.has(host);
    });
    if (this.#before !== undefined && !this.#isLooking(nowMs)) this.#hear(undefined, this.#allSinceMs);
    this.#choose(nowMs);
    this.#settle(nowMs);
    return silent;
  }

  #take(host: string, message: ActivityMessage, nowMs: number): 'old' | 'too many hosts' | undefined {
    const refusal = this.#leases.hear(host, message, nowMs);
    const heard = this.#leases.get(host);
    if (refusal === undefined && heard !== undefined) this.#note(heard);
    return refusal;
  }

  #note(heard: HeardHost): void {
    const answers = this.#answersOf(heard);
    if (answers.includes(true)) this.#answers.set(heard.host, answers);
    else this.#answers.delete(heard.host);
  }

  #answersOf(heard: HeardHost): boolean[] {
    const { questions = [] } = this.#minded;
    if (questions.length === 0) return [];
    const processes = remoteDomains([heard], QUESTION_MS).flatMap((domain) => domain.processes);
    return questions.map(({ isAnsweredBy }) => processes.some(isAnsweredBy));
  }

  /** Hosts that answer a question and can be counted upon. */
  #answering(question: number, nowMs: number): string[] {
    return [...this.#answers].flatMap(([host, answers]) => {
      if (answers[question] !== true || this.#putOff.has(host)) return [];
      const { heardMs, message } = this.#leases.get(host)!;
      return nowMs - heardMs <= DOUBT * message.leaseMs ? [host] : [];
    });
  }

  #hasEach(least: number, nowMs: number): boolean {
    return (
      this.#asked.length > 0 && this.#asked.every((each) => this.#answering(each, nowMs).length >= least)
    );
  }

  /** All others are heard again, and have not yet been for a lease. */
  #isLooking(nowMs: number): boolean {
    return this.#before !== undefined && nowMs - this.#allSinceMs < this.#leaseMs;
  }

  /**
   * @param chosen undefined for all
   * @param before to go on with until enough others are found
   */
  #hear(chosen: ReadonlySet<string> | undefined, nowMs: number, before?: ReadonlySet<string>): void {
    this.#chosen = chosen;
    this.#before = before;
    this.#allSinceMs = nowMs;
    if (chosen !== undefined) this.#subjects = chosen;
    else this.#subjects = new Set(this.named ?? [ALL, ...(before ?? [])]);
  }

  /** Hears fewer hosts, or all again. */
  #choose(nowMs: number): void {
    if (this.#chosen !== undefined) {
      if (!this.#hasEach(FEW, nowMs)) this.#hear(undefined, nowMs, this.#chosen);
      return;
    }
    if (!this.#hasEach(this.#isLooking(nowMs) ? WITNESSES : MANY, nowMs)) return;
    const chosen = new Set(this.#minded.hosts);
    for (const each of this.#asked) {
      // By lot, so that not all count upon the same ones.
      const lots = this.#answering(each, nowMs).map((host) => ({ host, lot: this.#random() }));
      for (const { host } of lots.sort((a, b) => a.lot - b.lot).slice(0, WITNESSES)) chosen.add(host);
    }
    this.#hear(chosen, nowMs);
    this.#keep((host) => chosen.has(host));
  }

  #keepNamed(): void {
    const { named } = this;
    if (named !== undefined) this.#keep((host) => named.includes(host));
  }

  #keep(isMinded: (host: string) => boolean): void {
    this.#leases.keep(isMinded);
    for (const known of [this.#answers, this.#putOff])
      for (const host of known.keys()) if (!isMinded(host)) known.delete(host);
  }

  /** Whether nobody else is known to answer a question that this host no longer answers, while somebody may. */
  #isLast(host: string, message: ActivityMessage, nowMs: number): boolean {
    const had = this.#answers.get(host);
    if (had === undefined || !this.#isLooking(nowMs)) return false;
    const now = this.#answersOf({ host, state: stateAfter(message), heardMs: nowMs, message });
    return this.#asked.some(
      (each) => had[each] && !now[each] && this.#answering(each, nowMs).every((other) => other === host),
    );
  }

  #settle(nowMs: number): void {
    for (const [host, { message, heardMs }] of this.#putOff) {
      if (this.#isLast(host, message, nowMs)) continue;
      this.#putOff.delete(host);
      this.#take(host, message, heardMs);
    }
  }
}
