import { setTimeout as sleep } from 'node:timers/promises';
import { Draft } from '../edit/draft.ts';
import { DomschedError } from '../error.ts';
import { bootMark } from '../guest/boot-mark.ts';
import type { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import type { GuestVirtual } from '../memory/address.ts';
import { HELD, type Holder, type ThreadStanding } from './holder.ts';
import { holderFor } from './holder-for.ts';
import { type HeldRecord, isOfDomain } from './journal.ts';

/** Between two looks at a thread that seems held, in ms: a wake-up or a fork is over by then. */
const BETWEEN_MS = 20;

/**
 * Matches records to processes of a guest, for callers that only look. A pid may be reused and a domain's name may
 * belong to another machine, so boot mark, task address and start time must match. A guest without start times may
 * reuse the address of a task; there its own queues must agree.
 */
export class HeldRecords {
  readonly #guest: Guest;
  /** This boot of the guest. */
  readonly boot: string;
  readonly #makeHolder: () => Holder;
  #holder: Holder | null | undefined;
  /** Threads that were found held at the last look. */
  #held: ReadonlySet<GuestVirtual> = new Set();

  /** @param processes of the guest, all from one look */
  static of(guest: Guest, processes: readonly Process[], makeHolder = () => holderFor(guest)): HeldRecords {
    const init = processes.find(({ pid }) => pid === 1);
    return new HeldRecords(guest, bootMark(guest, init), makeHolder);
  }

  private constructor(guest: Guest, boot: string, makeHolder: () => Holder) {
    this.#guest = guest;
    this.boot = boot;
    this.#makeHolder = makeHolder;
  }

  /** Finds the record of a process's hold among those of all domains. */
  find(records: readonly HeldRecord[], process: Process): HeldRecord | undefined {
    const address = `0x${process.address.toString(16)}`;
    const record = records.find(
      (candidate) =>
        candidate.pid === process.pid &&
        candidate.address === address &&
        candidate.startTimeNs === process.startTimeNs &&
        (candidate.boot === undefined || candidate.boot === this.boot) &&
        isOfDomain(candidate, this.#guest.domain.identity),
    );
    if (record === undefined || process.startTimeNs > 0) return record;
    return this.#looksFree(process) ? undefined : record;
  }

  /**
   * Which of these processes the guest itself shows to be held: by somebody of whom no record here tells. Only their
   * `suspects` are read. The guest runs meanwhile, so a thread has to look held twice, and some time apart.
   */
  async heldIn(processes: readonly Process[]): Promise<Process[]> {
    const suspects = new Map(
      processes.flatMap((process) => (process.suspects ?? []).map((thread) => [thread, process] as const)),
    );
    const look = () => [...suspects.keys()].filter((thread) => HELD.has(this.#standing(thread)!));
    let held = suspects.size === 0 ? [] : look();
    if (held.some((thread) => !this.#held.has(thread))) {
      await sleep(BETWEEN_MS);
      const again = new Set(look());
      held = held.filter((thread) => again.has(thread));
    }
    this.#held = new Set(held);
    return [...new Set(held.map((thread) => suspects.get(thread)!))];
  }

  /** Whether the guest's own structures show no hold on the process. */
  #looksFree({ address }: Process): boolean {
    const standing = this.#standing(address);
    return standing === 'running' || standing === 'ready' || standing === 'sleeping';
  }

  /**
   * By the guest's own structures; undefined if they cannot tell now. The guest is not paused, so the answer may be
   * wrong for a moment.
   */
  #standing(thread: GuestVirtual): ThreadStanding | undefined {
    if (this.#holder === null) return undefined;
    try {
      this.#holder ??= this.#makeHolder();
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      // What cannot be edited cannot have been held.
      this.#holder = null;
      return undefined;
    }
    try {
      return this.#holder.standing(new Draft(this.#guest.space), thread);
    } catch (error) {
      if (error instanceof DomschedError) return undefined;
      throw error;
    }
  }
}
