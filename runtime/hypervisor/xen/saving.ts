import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** The program in which libxl saves and migrates domains, as the kernel cuts its name. */
const HELPER = 'libxl-save-help';
/** A process that has been there for so long is what it is: no fork that is about to become another program. */
const SETTLED_MS = 2_000;

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
  domains(): ReadonlySet<number> {
    const found = new Set<number>();
    const now = performance.now();
    const pids = new Set(readdirSync(this.#proc).filter((name) => /^\d+$/.test(name)));
    for (const pid of this.#others.keys()) if (!pids.has(pid)) this.#others.delete(pid);
    for (const pid of pids) {
      const since = this.#others.get(pid);
      // Looked at once more when it has settled.
      if (since === Number.NEGATIVE_INFINITY) continue;
      const domid = this.#savedBy(pid);
      if (domid !== undefined) found.add(domid);
      else if (since === undefined) this.#others.set(pid, now);
      else if (now - since > SETTLED_MS) this.#others.set(pid, Number.NEGATIVE_INFINITY);
    }
    return found;
  }

  #savedBy(pid: string): number | undefined {
    try {
      if (readFileSync(path.join(this.#proc, pid, 'comm'), 'latin1').trim() !== HELPER) return undefined;
      // Program, mode, two descriptors, the domain's id (tools/libs/light/libxl_save_callout.c).
      const words = readFileSync(path.join(this.#proc, pid, 'cmdline'), 'latin1').split('\0');
      return words[1] === '--save-domain' ? Number(words[4]) : undefined;
    } catch {
      // It has ended.
      return undefined;
    }
  }
}
