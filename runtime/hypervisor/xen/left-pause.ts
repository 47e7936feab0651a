import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { makePrivate, writePrivate } from '../../runtime-directory.ts';
import type { XenDomainInfo } from './calls.ts';

/** Directory of the notes, below the root of the file system. A boot empties /run and ends Xen's domains. */
const FOLDER = 'run/domsched/pauses';

/**
 * Notes pauses that a process of ours left behind when it died in the middle of an edit. We must end them once the
 * journal has repaired the edit. A note is void if the domain has run since.
 */
export class LeftPauses {
  readonly #folder: string;

  /** @param root of the file system */
  constructor(root = '/') {
    this.#folder = path.join(root, FOLDER);
  }

  note(info: XenDomainInfo): void {
    makePrivate(this.#folder);
    writePrivate(this.#fileOf(info), String(info.cpuTimeNs));
  }

  /** Removes a note. @returns whether it existed and the domain has not run since */
  take(info: XenDomainInfo): boolean {
    try {
      const file = this.#fileOf(info);
      const noted = readFileSync(file, 'utf8');
      rmSync(file, { force: true });
      return noted === String(info.cpuTimeNs);
    } catch {
      return false;
    }
  }

  #fileOf({ domid, uuid }: XenDomainInfo): string {
    return path.join(this.#folder, `xen-${domid}-${uuid}`);
  }
}
