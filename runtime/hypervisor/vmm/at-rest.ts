import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { DomschedError } from '../../error.ts';
import { shellWord } from '../../shell-word.ts';
import { optionOf } from './command-line.ts';
import type { MachineProcess } from './machine-process.ts';
import type { MachineThreads } from './vcpu-threads.ts';

/** Libvirt writes the state of each of its machines here, at every step of a job. */
const LIBVIRT = '/run/libvirt/qemu';
/** Jobs of libvirt that leave memory alone. */
const HARMLESS_JOBS: ReadonlySet<string> = new Set(['none', 'backup']);
/** Proxmox locks a machine here while it works on it; only the lock `backup` leaves memory alone. */
const PROXMOX = '/etc/pve/qemu-server';
const HARMLESS_LOCK = 'backup';
const MONITORS = ['qmp', 'qmp-pretty', 'mon', 'monitor'] as const;

/** Directories in which managers of machines write what they do. Tests have their own. */
export interface ManagerPlaces {
  readonly libvirt: string;
  readonly proxmox: string;
}
export const MANAGER_PLACES: ManagerPlaces = { libvirt: LIBVIRT, proxmox: PROXMOX };

/**
 * Checks from outside that nobody moves the memory of a machine (a migration, a save, a snapshot of a running one) or
 * has paused it: by the thread with which QEMU does so, and by its manager's files. Our writes are not marked as
 * changes, so they would be left behind or be half in the copy.
 *
 * @returns whether its manager says that it runs; false without a manager's word
 * @throws DomschedError `refused` while it is moved or paused, and if that cannot be told
 */
export function checkAtRest(
  machine: MachineProcess,
  threads: MachineThreads,
  places: ManagerPlaces = MANAGER_PLACES,
): boolean {
  const { name, pid, args, isQemu } = machine;
  const refuse = (why: string) => new DomschedError('refused', `${name} ${why}`, { domain: name, pid });
  if (threads.moving !== undefined) {
    throw refuse(`is being migrated or saved (thread ${threads.moving}); try again when that is done`);
  }
  const libvirt = libvirtStatus(pid, places.libvirt);
  if (libvirt !== undefined) {
    if (libvirt.state !== 'running') {
      throw refuse(`is ${libvirt.state} by libvirt; virsh resume ${shellWord(name)} lets it go on`);
    }
    if (!HARMLESS_JOBS.has(libvirt.job))
      throw refuse(`has a job of libvirt's (${libvirt.job}); try again when it is done`);
    return true;
  }
  const lock = proxmoxLock(args, places.proxmox);
  if (lock !== undefined && lock !== HARMLESS_LOCK) {
    throw refuse(`is locked by Proxmox (${lock}); try again when that is done`);
  }
  if (isQemu && threads.named === 0 && hasMonitor(args)) {
    throw refuse(
      'has a monitor and threads without names: whether it is being migrated or saved cannot be told. Start it with ' +
        '-name NAME,debug-threads=on, or give it a QMP socket of ours',
    );
  }
  return false;
}

/** Whether somebody could order a QEMU to move its memory. By default it has a monitor in its window. */
export function hasMonitor(args: readonly string[]): boolean {
  const given = MONITORS.flatMap((option) => optionOf(args, option) ?? []);
  if (given.some((value) => value !== 'none')) return true;
  if (args.some((arg) => arg.startsWith('mon:'))) return true;
  return given.length === 0 && !args.some((arg) => /^--?nodefaults$/.test(arg));
}

/** Libvirt's state of the machine with this process; there is one file per machine, which names its process. */
function libvirtStatus(pid: number, place: string): { state: string; job: string } | undefined {
  for (const name of namesOf(place)) {
    if (!name.endsWith('.xml')) continue;
    const text = textOf(path.join(place, name));
    const [status = ''] = /<domstatus [^>]*>/.exec(text) ?? [];
    if (/ pid='(\d+)'/.exec(status)?.[1] !== String(pid)) continue;
    const state = / state='(\w+)'/.exec(status)?.[1] ?? 'unknown';
    // Without a job there is no such line.
    const [job = ''] = /<job [^>]*>/.exec(text) ?? [];
    return { state, job: / async='([^']*)'/.exec(job)?.[1] ?? 'none' };
  }
  return undefined;
}

function proxmoxLock(args: readonly string[], place: string): string | undefined {
  const id = optionOf(args, 'id');
  if (id === undefined || !/^\d+$/.test(id)) return undefined;
  // The sections after the first are about snapshots.
  const [current = ''] = textOf(path.join(place, `${id}.conf`)).split(/^\[/m);
  return /^lock:\s*(\S+)/m.exec(current)?.[1];
}

function namesOf(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
