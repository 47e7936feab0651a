import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Makes a control group with a CPU controller.
 * @param name path below the hierarchy's mount point; groups above it exist
 * @returns its directory; undefined when there can be none here
 */
export function makeGroup(name: string): string | undefined {
  for (const mount of ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup']) {
    const group = path.join(mount, name);
    try {
      mkdirSync(group);
    } catch {
      continue;
    }
    if (weightFile(group) !== undefined) return group;
    rmdirSync(group);
  }
  return undefined;
}

/** The file with the weight of a group, of either version of control groups. */
export function weightFile(group: string): string | undefined {
  return ['cpu.shares', 'cpu.weight']
    .map((name) => path.join(group, name))
    .find((file) => {
      try {
        return readFileSync(file) !== undefined;
      } catch {
        return false;
      }
    });
}

export function moveInto(group: string, pid: number): void {
  writeFileSync(path.join(group, 'cgroup.procs'), String(pid));
}

/** Removes a group whose processes have ended or are about to. */
export async function removeGroup(group: string): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt++) {
    try {
      rmdirSync(group);
      return;
    } catch {
      await sleep(100);
    }
  }
}
