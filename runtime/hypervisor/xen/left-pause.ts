import { readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { HostProcess } from '../../host-process.ts';
import { makePrivate, writePrivate } from '../../runtime-directory.ts';
import { tableFiles, withAbandoned } from '../pause-files.ts';
import { forgetPause, type NotedPause, readPauses } from '../pause-table.ts';
import type { StandingPause } from '../types.ts';
import type { XenDomainInfo } from './calls.ts';

/** Directory of the notes, below the root of the file system. A boot empties /run and ends Xen's domains. */
const FOLDER = 'run/domsched/pauses';

/** Folder of notes and tables. @param root of the file system */
export function pausesFolder(root: string): string {
  return path.join(root, FOLDER);
}

/**
 * Pauses that processes of ours left behind: noted by the process beside one that died in the middle of an edit, or
 * still in the table of two that died together. Who edits next ends them, once the journal has repaired the edit. A
 * pause is void if the domain has run since.
 */
export class LeftPauses {
  /** Of notes and tables. */
  readonly folder: string;

  /** @param root of the file system */
  constructor(root = '/') {
    this.folder = pausesFolder(root);
  }

  note(info: XenDomainInfo): void {
    makePrivate(this.folder);
    writePrivate(this.#fileOf(info), String(info.cpuTimeNs));
  }

  /** Whether a domain's present pause was left behind, and by whom. */
  standing(info: XenDomainInfo): StandingPause | undefined {
    if (!info.paused) return undefined;
    if (this.#isNoted(info)) return { by: 'dead' };
    let pid: number | undefined;
    const isLeft = this.#inTables(info, (_, __, writer) => {
      pid = writer.pid;
    });
    return isLeft ? { by: 'dead', ...(pid !== undefined && { pid }) } : undefined;
  }

  /**
   * Calls `takeOver` for one pause that was left behind, which is forgotten after that and not before, as we may die too.
   * @returns whether there was one
   */
  take(info: XenDomainInfo, takeOver: () => void): boolean {
    const noted = this.#isNoted(info);
    if (noted) takeOver();
    rmSync(this.#fileOf(info), { force: true });
    if (noted) return true;
    return this.#inTables(info, (descriptor, { slot }) => {
      takeOver();
      forgetPause(descriptor, slot);
    });
  }

  /** Removes tables of dead processes in which nothing of these domains is. @param find the domain of a number */
  tidy(find: (domid: number) => XenDomainInfo | undefined): void {
    for (const { file, kind } of tableFiles(this.folder)) {
      if (kind !== 'xen') continue;
      withAbandoned(file, (descriptor) => {
        const isLeft = (pause: NotedPause) => {
          const info = find(pause.key);
          return info !== undefined && isOf(pause, info);
        };
        if (!readPauses(descriptor).some(isLeft)) rmSync(file, { force: true });
      });
    }
  }

  #isNoted(info: XenDomainInfo): boolean {
    try {
      return readFileSync(this.#fileOf(info), 'utf8') === String(info.cpuTimeNs);
    } catch {
      return false;
    }
  }

  /** @returns whether a pause of this domain is in a table that two dead processes left; `use` is called for the first */
  #inTables(
    info: XenDomainInfo,
    use: (descriptor: number, pause: NotedPause, writer: HostProcess) => void,
  ): boolean {
    return tableFiles(this.folder).some(({ file, kind, pauses, writer }) => {
      if (kind !== 'xen' || !pauses.some((pause) => isOf(pause, info))) return false;
      return withAbandoned(file, (descriptor) => {
        const left = readPauses(descriptor).find((pause) => isOf(pause, info));
        if (left !== undefined) use(descriptor, left, writer);
        return left !== undefined;
      });
    });
  }

  #fileOf({ domid, uuid }: XenDomainInfo): string {
    return path.join(this.folder, `xen-${domid}-${uuid}`);
  }
}

function isOf({ key, wish, stoodAt }: NotedPause, { domid, paused, cpuTimeNs }: XenDomainInfo): boolean {
  return key === domid && wish !== 'resumed' && paused && stoodAt === cpuTimeNs;
}
