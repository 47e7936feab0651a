import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** The program with which libxl saves and migrates domains, cut by the kernel to 15 characters. */
const HELPER = 'libxl-save-help';
/** Flag for reading the memory of a running domain (`XCFLAGS_LIVE`, tools/include/xenguest.h). */
const LIVE = 1n;
/** Words of its command line in the form that has the flags right behind the id, with the empty one at the end. */
const KNOWN_WORDS = 9;
/** After this time a process is no longer a fork that is about to become another program. */
const SETTLED_MS = 2_000;

/**
 * When the memory of a domain is read: while it runs, or after it has suspended itself (`send_domain_memory_nonlive()`,
 * tools/libs/guest/xg_sr_save.c), which Xen reports as a shutdown.
 */
export type Saving = 'live' | 'suspended';

/**
 * Knows which domains are being saved or migrated on this host, because writes to them may be left behind. Xen itself
 * does not tell, but the helper of xl and libvirt runs the whole time, with the id among its arguments.
 */
export class SavingWatch {
  readonly #proc: string;
  /** Processes that are something else, with the time they were first seen; minus infinity once they have settled. */
  readonly #others = new Map<string, number>();

  /** Processes made since the host's boot when {@link domains} last looked, if it need not look again before more are. */
  #settledAt: string | undefined;

  /** @param proc directory that lists processes */
  constructor(proc = '/proc') {
    this.#proc = proc;
  }

  /**
   * Ids of the domains. Only new processes are looked at, and none is listed while the host has made none: listing them
   * takes longer than all else that is done in a pause.
   */
  domains(): ReadonlyMap<number, Saving> {
    const found = new Map<number, Saving>();
    const made = this.#processesMade();
    if (made !== undefined && made === this.#settledAt) return found;
    const now = performance.now();
    const pids = new Set(readdirSync(this.#proc).filter((name) => /^\d+$/.test(name)));
    for (const pid of this.#others.keys()) if (!pids.has(pid)) this.#others.delete(pid);
    for (const pid of pids) {
      const since = this.#others.get(pid);
      // It is looked at once more when it has settled.
      if (since === Number.NEGATIVE_INFINITY) continue;
      const saved = this.#savedBy(pid);
      if (saved !== undefined) found.set(saved.domid, saved.how);
      else if (since === undefined) this.#others.set(pid, now);
      else if (now - since > SETTLED_MS) this.#others.set(pid, Number.NEGATIVE_INFINITY);
    }
    const settled = [...this.#others.values()].every((since) => since === Number.NEGATIVE_INFINITY);
    this.#settledAt = settled && found.size === 0 ? made : undefined;
    return found;
  }

  #processesMade(): string | undefined {
    try {
      return /^processes (\d+)$/m.exec(readFileSync(path.join(this.#proc, 'stat'), 'latin1'))?.[1];
    } catch {
      return undefined;
    }
  }

  #savedBy(pid: string): { domid: number; how: Saving } | undefined {
    try {
      if (readFileSync(path.join(this.#proc, pid, 'comm'), 'latin1').trim() !== HELPER) return undefined;
      // Arguments: program, mode, two descriptors, domain id, flags (tools/libs/light/libxl_save_callout.c).
      const words = readFileSync(path.join(this.#proc, pid, 'cmdline'), 'latin1').split('\0');
      if (words[1] !== '--save-domain') return undefined;
      // Since 4.14 callbacks and kind of stream follow the flags; older helpers have other numbers in their place. If it is
      // not this form, or the flags are not a number, assume the worse.
      const isKnown = words.length === KNOWN_WORDS && /^\d+$/.test(words[5]!);
      const suspended = isKnown && (BigInt(words[5]!) & LIVE) === 0n;
      return { domid: Number(words[4]), how: suspended ? 'suspended' : 'live' };
    } catch {
      // The process has ended.
      return undefined;
    }
  }
}
