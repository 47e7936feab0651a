import { setTimeout as sleep } from 'node:timers/promises';
import { Blame } from '../blame/blame.ts';
import { blameNotes } from '../blame/notes.ts';
import type { AccountSample, DomainTimes } from '../blame/sample.ts';
import { DomschedError } from '../error.ts';
import { isProcess } from '../guest/find-process.ts';
import { isNamed } from '../guest/text.ts';
import { matches } from '../policy/selector.ts';
import {
  type BlameBegin,
  type BlameFound,
  LONGEST_TOLD,
  MOST_CULPRITS,
  MOST_NOTES,
  MOST_VICTIMS,
} from './blame-word.ts';

/** Looks for others that are under way at a time. */
const MOST_BLAMES = 2;
/** After a look a host rests for this many times what it took: so looks for others take a tenth of a CPU at most. */
const REST = 9;
/** How long what was found is kept for whoever asked, in ms. */
const KEPT_MS = 60_000;

interface Running {
  readonly stop: AbortController;
  readonly done: Promise<BlameFound>;
}

/** Finds out for operators elsewhere for whom processes of this host wait. It looks and changes nothing. */
export class Blames {
  readonly #host: string;
  readonly #accounts: () => Promise<AccountSample>;
  readonly #now: () => number;
  readonly #running = new Map<string, Running>();
  readonly #closed = new AbortController();

  /** @param accounts reads what host and guests have accounted */
  constructor(host: string, accounts: () => Promise<AccountSample>, now = () => performance.now()) {
    this.#host = host;
    this.#accounts = accounts;
    this.#now = now;
  }

  /** @returns how many domains and processes are meant, or why nothing is looked at; undefined if this host is not meant */
  async begin(asked: BlameBegin): Promise<object | undefined> {
    if (asked.hosts.length > 0 && !matches(asked.hosts, this.#host)) return undefined;
    if (this.#running.has(asked.id)) return undefined;
    if (this.#running.size >= MOST_BLAMES) {
      const message = `${MOST_BLAMES} others are being answered here; ask again when they are`;
      return { error: { code: 'refused', message } };
    }
    const stop = new AbortController();
    const first = this.#accounts();
    const isMeant = ({ name }: DomainTimes) =>
      asked.domain === undefined ||
      isNamed(name, asked.domain) ||
      isNamed(`${this.#host}/${name}`, asked.domain);
    const done = this.#look(asked, isMeant, first, AbortSignal.any([stop.signal, this.#closed.signal]));
    this.#running.set(asked.id, { stop, done });
    void done.then(() => {
      setTimeout(() => this.#running.delete(asked.id), KEPT_MS).unref();
    });
    try {
      const domains = (await first).domains.filter(isMeant);
      const pids = domains.map(
        ({ threads }) => new Set(threads.filter((one) => isWanted(one, asked)).map(({ pid }) => pid)).size,
      );
      return { domains: domains.length, processes: pids.reduce((sum, count) => sum + count, 0) };
    } catch (error) {
      return { error: failureOf(error) };
    }
  }

  /** @returns what was found until now; undefined if nothing was begun under this id */
  async end(id: string): Promise<BlameFound | undefined> {
    const running = this.#running.get(id);
    if (running === undefined) return undefined;
    running.stop.abort();
    const found = await running.done;
    this.#running.delete(id);
    return found;
  }

  close(): void {
    this.#closed.abort();
  }

  async #look(
    asked: BlameBegin,
    isMeant: (domain: DomainTimes) => boolean,
    first: Promise<AccountSample>,
    signal: AbortSignal,
  ): Promise<BlameFound> {
    const blame = new Blame(isMeant, (one) => isWanted(one, asked));
    const endMs = this.#now() + asked.seconds * 1000;
    const subjects = new Set<string>();
    let begunMs = this.#now();
    let next = first;
    try {
      for (;;) {
        const sample = await next;
        blame.add(sample);
        for (const domain of sample.domains) if (isMeant(domain)) subjects.add(domain.name);
        const nowMs = this.#now();
        if (signal.aborted || nowMs >= endMs) break;
        const restMs = Math.max(asked.interval * 1000, REST * (nowMs - begunMs));
        await sleep(Math.min(restMs, endMs - nowMs), undefined, { signal, ref: false }).catch(() => {});
        begunMs = this.#now();
        next = this.#accounts();
      }
    } catch (error) {
      return { error: failureOf(error) };
    }
    return found(blame, (name) => subjects.has(name));
  }
}

function isWanted(one: { readonly pid: number; readonly comm: string }, { process }: BlameBegin): boolean {
  return process === undefined || isProcess(one, process);
}

function found(blame: Blame, isSubject: (domain: string) => boolean): BlameFound {
  const result = blame.result();
  const culprits = result.shares.map(({ culprit: { kind, domain, comm }, place, waitedNs }) => ({
    kind,
    ...(domain !== undefined && { domain: short(domain) }),
    ...(comm !== undefined && { comm: short(comm) }),
    place,
    waitedNs,
  }));
  const rest = culprits.slice(MOST_CULPRITS);
  const at = (wanted: string) =>
    rest.reduce((sum, { place, waitedNs }) => sum + (place === wanted ? waitedNs : 0), 0);
  const waited = result.victims.filter(({ waitedNs }) => waitedNs > 0);
  return {
    elapsedNs: Math.round(result.elapsedNs),
    samples: result.samples,
    ranNs: result.ranNs,
    culprits: culprits.slice(0, MOST_CULPRITS),
    rest: { culprits: rest.length, inGuestNs: at('guest'), onHostNs: at('host') },
    processes: waited
      .slice(0, MOST_VICTIMS)
      .map(({ domain, comm, ...one }) => ({ domain: short(domain), comm: short(comm), ...one })),
    moreProcesses: Math.max(0, waited.length - MOST_VICTIMS),
    notes: blameNotes(isSubject, result)
      .slice(0, MOST_NOTES)
      .map(({ code, domain }) => ({ code, domain: short(domain) })),
  };
}

function short(name: string): string {
  return name.slice(0, LONGEST_TOLD);
}

function failureOf(error: unknown): { code: string; message: string } {
  if (!(error instanceof DomschedError)) return { code: 'protocol', message: String(error).slice(0, 2_000) };
  return { code: error.code, message: error.message.slice(0, 2_000) };
}
