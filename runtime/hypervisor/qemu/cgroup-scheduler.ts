import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DomschedError } from '../../error.ts';
import type { DomainScheduler, DomainShare } from '../types.ts';

/** Weight that a domain has unless told otherwise, here as in Xen's schedulers. */
const DEFAULT_WEIGHT = 256;
const PERIOD_US = 100_000;

/** Where a controller keeps its knobs and how they read (Linux admin-guide/cgroup-v1, cgroup-v2). */
interface Knobs {
  readonly weightFile: string;
  /** Of a group that nobody has changed, and the bounds. */
  readonly defaultWeight: number;
  readonly minWeight: number;
  readonly maxWeight: number;
  /** Microseconds of CPU time per period, undefined without a cap. */
  readQuota(group: string): { quota: number; period: number } | undefined;
  /** @param quota undefined takes the cap away */
  writeQuota(group: string, quota: number | undefined): void;
}

const V2: Knobs = {
  weightFile: 'cpu.weight',
  defaultWeight: 100,
  minWeight: 1,
  maxWeight: 10_000,
  readQuota(group) {
    const [quota, period] = readText(path.join(group, 'cpu.max')).split(' ');
    return quota === 'max' ? undefined : { quota: Number(quota), period: Number(period) };
  },
  writeQuota(group, quota) {
    writeFileSync(path.join(group, 'cpu.max'), `${quota ?? 'max'} ${PERIOD_US}`);
  },
};

const V1: Knobs = {
  weightFile: 'cpu.shares',
  defaultWeight: 1024,
  minWeight: 2,
  maxWeight: 262_144,
  readQuota(group) {
    const quota = Number(readText(path.join(group, 'cpu.cfs_quota_us')));
    const period = Number(readText(path.join(group, 'cpu.cfs_period_us')));
    return quota < 0 ? undefined : { quota, period };
  },
  writeQuota(group, quota) {
    if (quota !== undefined) writeFileSync(path.join(group, 'cpu.cfs_period_us'), String(PERIOD_US));
    writeFileSync(path.join(group, 'cpu.cfs_quota_us'), String(quota ?? -1));
  },
};

/**
 * Weight and cap of a QEMU process by the CPU controller of its control group.
 * @param root where control groups are mounted
 * @param membership of the process, as /proc has it
 * @returns undefined where the machine has no group to itself, so that nobody else is slowed down with it
 */
export function cgroupScheduler(
  pid: number,
  root = '/sys/fs/cgroup',
  membership = readText(`/proc/${pid}/cgroup`),
): DomainScheduler | undefined {
  const found = groupOf(pid, root, membership);
  if (found === undefined) return undefined;
  const { group, knobs } = found;
  const get = async (): Promise<DomainShare> => {
    const raw = Number(readText(path.join(group, knobs.weightFile)));
    const quota = knobs.readQuota(group);
    return {
      weight: Math.max(1, Math.round((raw * DEFAULT_WEIGHT) / knobs.defaultWeight)),
      cap: quota === undefined ? 0 : Math.round((quota.quota / quota.period) * 100),
    };
  };
  return {
    name: 'cgroup',
    get,
    async set({ weight, cap }) {
      const raw =
        weight === undefined ? undefined : Math.round((weight * knobs.defaultWeight) / DEFAULT_WEIGHT);
      if (raw !== undefined && !(raw >= knobs.minWeight && raw <= knobs.maxWeight)) {
        const [min, max] = [knobs.minWeight, knobs.maxWeight].map((bound) =>
          Math.round((bound * DEFAULT_WEIGHT) / knobs.defaultWeight),
        );
        throw new DomschedError('usage', `weight ${weight} is not in ${Math.max(1, min!)}..${max}`, {
          weight,
        });
      }
      if (cap !== undefined && !(Number.isInteger(cap) && cap >= 0 && cap <= 100_000)) {
        throw new DomschedError('usage', `cap ${cap} is not a percentage of one CPU (0 for none)`, { cap });
      }
      try {
        if (raw !== undefined) writeFileSync(path.join(group, knobs.weightFile), String(raw));
        if (cap !== undefined) knobs.writeQuota(group, cap === 0 ? undefined : (cap * PERIOD_US) / 100);
      } catch (cause) {
        const message = `cannot set the share of ${group}: ${(cause as Error).message}; run as root`;
        throw new DomschedError('host-unreachable', message, { group }, { cause });
      }
      return get();
    },
  };
}

/** The group that holds this process and nobody else; libvirt's is the scope around the groups of its threads. */
function groupOf(pid: number, root: string, membership: string): { group: string; knobs: Knobs } | undefined {
  for (const line of membership.split('\n')) {
    const [, controllers = '', place = ''] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    const names = controllers.split(',');
    const unified = controllers === '';
    if (place === '' || place === '/' || (!unified && !names.includes('cpu'))) continue;
    const knobs = unified ? V2 : V1;
    const mounts = unified
      ? [root, path.join(root, 'unified')]
      : [path.join(root, controllers), path.join(root, 'cpu')];
    const scope = /^(.*\/machine-qemu[^/]*\.scope)(\/|$)/.exec(place)?.[1];
    for (const mount of mounts) {
      const group = path.join(mount, scope ?? place);
      if (!existsSync(path.join(group, knobs.weightFile))) continue;
      if (scope !== undefined || isAlone(group, pid)) return { group, knobs };
    }
  }
  return undefined;
}

function isAlone(group: string, pid: number): boolean {
  return readText(path.join(group, 'cgroup.procs')) === String(pid);
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
