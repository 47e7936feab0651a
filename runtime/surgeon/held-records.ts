import { Draft } from '../edit/draft.ts';
import { DomschedError } from '../error.ts';
import { bootMark } from '../guest/boot-mark.ts';
import type { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import type { Holder } from './holder.ts';
import { holderFor } from './holder-for.ts';
import { type HeldRecord, isOfDomain } from './journal.ts';

/**
 * Matches records to processes of a guest, for callers that only look. A pid may be reused and a domain's name may
 * belong to another machine, so boot mark, task address and start time must match. A guest without start times may
 * reuse the address of a task; there its own queues must agree.
 */
export class HeldRecords {
  readonly #guest: Guest;
  /** This boot of the guest. */
  readonly boot: string;
  #holder: Holder | null | undefined;

  /** @param processes of the guest, all from one look */
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
   * Whether the guest's own structures show no hold on the process. The guest is not paused, so the answer may be wrong
   * for a moment.
   */
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
