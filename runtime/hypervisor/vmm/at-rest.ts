import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { DomschedError } from '../../error.ts';
import { shellWord } from '../../shell-word.ts';
import { optionOf } from './command-line.ts';
import type { MachineProcess } from './machine-process.ts';
import type { MachineThreads } from './vcpu-threads.ts';

/** Where libvirt writes how each of its machines stands, at every step of a job of it. */
const LIBVIRT = '/run/libvirt/qemu';
/** Jobs of libvirt that leave memory alone. */
const HARMLESS_JOBS: ReadonlySet<string> = new Set(['none', 'backup']);
/** Where Proxmox says what is being done to a machine, and the one of those that leaves memory alone. */
const PROXMOX = '/etc/pve/qemu-server';
const HARMLESS_LOCK = 'backup';
const MONITORS = ['qmp', 'qmp-pretty', 'mon', 'monitor'] as const;

/** Places where managers of machines write what they do; a test has its own. */
export interface ManagerPlaces {
  readonly libvirt: string;
  readonly proxmox: string;
}
export const MANAGER_PLACES: ManagerPlaces = { libvirt: LIBVIRT, proxmox: PROXMOX };

/**
 * Told from outside: nobody moves the memory of a machine (a migration, a save, a snapshot of a running one) or has paused
 * it. By the thread with which QEMU does so, and by what its manager has written down. What we write is not marked as
 * changed, and would stay behind or be half in the copy.
 *
 * @returns whether its manager says that it runs; false where nobody says so
 * @throws DomschedError `refused` while it is moved or paused, and for a machine of which that cannot be told
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

/** What libvirt says of the machine of a process: a file per machine, with its process in it. */
function libvirtStatus(pid: number, place: string): { state: string; job: string } | undefined {
  for (const name of namesOf(place)) {
    if (!name.endsWith('.xml')) continue;
    const text = textOf(path.join(place, name));
    const [status = ''] = /<domstatus [^>]*>/.exec(text) ?? [];
    if (/ pid='(\d+)'/.exec(status)?.[1] !== String(pid)) continue;
    const state = / state='(\w+)'/.exec(status)?.[1] ?? 'unknown';
    // No job, no line of it.
    const [job = ''] = /<job [^>]*>/.exec(text) ?? [];
    return { state, job: / async='([^']*)'/.exec(job)?.[1] ?? 'none' };
  }
  return undefined;
}

function proxmoxLock(args: readonly string[], place: string): string | undefined {
  const id = optionOf(args, 'id');
  if (id === undefined || !/^\d+$/.test(id)) return undefined;
  // What follows the first section is of snapshots.
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
