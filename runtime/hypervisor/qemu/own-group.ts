import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** Mount point of control groups. */
export const GROUPS = '/sys/fs/cgroup';

/** Files that show that a group has the wanted controller, by version of the hierarchy. */
export interface GroupFiles {
  /** Name of the controller in version 1, and one of its files. */
  readonly v1: { readonly controller: string; readonly file: string };
  readonly v2: { readonly file: string };
}

/** A control group that holds only one machine's process. */
export interface OwnGroup {
  readonly version: 1 | 2;
  readonly directory: string;
}

/**
 * The group that holds only this process; with libvirt it is the scope around the groups of its threads and of the programs
 * that serve its devices (virtiofsd, swtpm), which stand or run with the machine.
 * @param membership of the process, as in /proc
 * @returns undefined if the machine has no group of its own, because others would be affected too
 */
export function ownGroup(
  pid: number,
  { v1, v2 }: GroupFiles,
  root = GROUPS,
  membership = readText(`/proc/${pid}/cgroup`),
): OwnGroup | undefined {
  for (const line of membership.split('\n')) {
    const [, controllers = '', place = ''] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    const names = controllers.split(',');
    const unified = controllers === '';
    if (place === '' || place === '/' || (!unified && !names.includes(v1.controller))) continue;
    const file = unified ? v2.file : v1.file;
    const mounts = unified
      ? [root, path.join(root, 'unified')]
      : [path.join(root, controllers), path.join(root, v1.controller)];
    const scope = /^(.*\/machine-qemu[^/]*\.scope)(\/|$)/.exec(place)?.[1];
    for (const mount of mounts) {
      const directory = path.join(mount, scope ?? place);
      if (!existsSync(path.join(directory, file))) continue;
      if (scope !== undefined || isAlone(directory, pid)) return { version: unified ? 2 : 1, directory };
    }
  }
  return undefined;
}

function isAlone(directory: string, pid: number): boolean {
  return readText(path.join(directory, 'cgroup.procs')) === String(pid);
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
