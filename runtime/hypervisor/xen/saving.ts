import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** The program in which libxl saves and migrates domains, as the kernel cuts its name. */
const HELPER = 'libxl-save-help';
/** Among its flags: the domain runs while its memory is read (`XCFLAGS_LIVE`, tools/include/xenguest.h). */
const LIVE = 1n;
/** A process that has been there for so long is what it is: no fork that is about to become another program. */
const SETTLED_MS = 2_000;

/**
 * How the memory of a domain is read: while it runs, or once it has suspended itself (`send_domain_memory_nonlive()`,
 * tools/libs/guest/xg_sr_save.c), which Xen tells as a shutdown.
 */
export type Saving = 'live' | 'suspended';

/**
 * Knows which domains are being saved or migrated on this host: what we write to one of them may be left behind. Xen
 * itself does not tell; the helper of xl and libvirt runs for as long as it takes, with the id among its arguments.
 */
export class SavingWatch {
  readonly #proc: string;
  /** Processes that are something else, and since when; minus infinity for those that stay so. */
  readonly #others = new Map<string, number>();

  /** @param proc where processes are listed */
  constructor(proc = '/proc') {
    this.#proc = proc;
  }

  /** Ids of the domains. Looks at processes that are new only. */
  domains(): ReadonlyMap<number, Saving> {
    const found = new Map<number, Saving>();
    const now = performance.now();
    const pids = new Set(readdirSync(this.#proc).filter((name) => /^\d+$/.test(name)));
    for (const pid of this.#others.keys()) if (!pids.has(pid)) this.#others.delete(pid);
    for (const pid of pids) {
      const since = this.#others.get(pid);
      // Looked at once more when it has settled.
      if (since === Number.NEGATIVE_INFINITY) continue;
      const saved = this.#savedBy(pid);
      if (saved !== undefined) found.set(saved.domid, saved.how);
      else if (since === undefined) this.#others.set(pid, now);
      else if (now - since > SETTLED_MS) this.#others.set(pid, Number.NEGATIVE_INFINITY);
    }
    return found;
  }

  #savedBy(pid: string): { domid: number; how: Saving } | undefined {
    try {
      if (readFileSync(path.join(this.#proc, pid, 'comm'), 'latin1').trim() !== HELPER) return undefined;
      // Program, mode, two descriptors, the domain's id, flags (tools/libs/light/libxl_save_callout.c).
      const words = readFileSync(path.join(this.#proc, pid, 'cmdline'), 'latin1').split('\0');
      if (words[1] !== '--save-domain') return undefined;
      // Flags that are not the number that we expect are taken for the worse.
      const suspended = /^\d+$/.test(words[5] ?? '') && (BigInt(words[5]!) & LIVE) === 0n;
      return { domid: Number(words[4]), how: suspended ? 'suspended' : 'live' };
    } catch {
      // It has ended.
      return undefined;
    }
  }
}
