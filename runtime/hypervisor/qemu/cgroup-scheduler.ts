import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DomschedError } from '../../error.ts';
import type { DomainScheduler, DomainShare } from '../types.ts';
import { GROUPS, type GroupFiles, ownGroup } from './own-group.ts';

/** Default weight of a domain, the same as in Xen's schedulers. */
const DEFAULT_WEIGHT = 256;
const PERIOD_US = 100_000;

/** Files of a controller and their formats (Linux admin-guide/cgroup-v1, cgroup-v2). */
interface Knobs {
  readonly weightFile: string;
  /** Weight of an unchanged group, and the bounds. */
  readonly defaultWeight: number;
  readonly minWeight: number;
  readonly maxWeight: number;
  /** Microseconds of CPU time per period; undefined without a cap. */
  readQuota(group: string): { quota: number; period: number } | undefined;
  /** Line of cpu.stat with the time in which the quota was used up, and the ns of its unit. */
  readonly throttled: { readonly key: string; readonly unitNs: number };
  /** @param quota undefined removes the cap */
  writeQuota(group: string, quota: number | undefined): void;
}

const V2: Knobs = {
  weightFile: 'cpu.weight',
  defaultWeight: 100,
  minWeight: 1,
  maxWeight: 10_000,
  throttled: { key: 'throttled_usec', unitNs: 1_000 },
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
  throttled: { key: 'throttled_time', unitNs: 1 },
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

const FILES: GroupFiles = {
  v1: { controller: 'cpu', file: V1.weightFile },
  v2: { file: V2.weightFile },
};

/**
 * Weight and cap of a QEMU process, by the CPU controller of its control group.
 * @param root mount point of control groups
 * @param membership of the process, as in /proc
 * @returns undefined if the machine has no group of its own, because others would be slowed down too
 */
export function cgroupScheduler(
  pid: number,
  root = GROUPS,
  membership = readText(`/proc/${pid}/cgroup`),
): DomainScheduler | undefined {
  const found = ownGroup(pid, FILES, root, membership);
  if (found === undefined) return undefined;
  const { directory: group, version } = found;
  const knobs = version === 2 ? V2 : V1;
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
    cappedNs() {
      const { key, unitNs } = knobs.throttled;
      const found = new RegExp(`^${key} (\\d+)$`, 'm').exec(readText(path.join(group, 'cpu.stat')));
      return found === null ? undefined : Number(found[1]) * unitNs;
    },
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

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}
