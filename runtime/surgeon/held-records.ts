import { Draft } from '../edit/draft.ts';
import { DomschedError } from '../error.ts';
import { bootMark } from '../guest/boot-mark.ts';
import type { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import type { Holder } from './holder.ts';
import { holderFor } from './holder-for.ts';
import { type HeldRecord, isOfDomain } from './journal.ts';

/**
 * Tells which records are of processes of a guest, for callers that only look. A process id may be another process's by now,
 * and a domain of the same name another machine: the boot, the place of the task and its start time tell. A guest
 * that keeps no start times may put the same task into the same place again: there its own queues have to agree.
 */
export class HeldRecords {
  readonly #guest: Guest;
  /** This boot of the guest. */
  readonly boot: string;
  #holder: Holder | null | undefined;

  /** @param processes of the guest, of one look at it */
  static of(guest: Guest, processes: readonly Process[]): HeldRecords {
    return new HeldRecords(
      guest,
      bootMark(
        guest,
        processes.find(({ pid }) => pid === 1),
      ),
    );
  }

  private constructor(guest: Guest, boot: string) {
    this.#guest = guest;
    this.boot = boot;
  }

  /** The record of a process's hold, among those of all domains. */
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

  /** Whether the guest's own structures say that nothing holds a process. Takes no pause, so it may err for a moment. */
  #looksFree(process: Process): boolean {
    try {
      this.#holder ??= holderFor(this.#guest);
      const standing = this.#holder.standing(new Draft(this.#guest.space), process.address);
      return standing === 'running' || standing === 'ready' || standing === 'sleeping';
    } catch (error) {
      if (error instanceof DomschedError) return false;
      throw error;
    }
  }
}
