import { DomschedError } from '../../error.ts';
import type { DomainScheduler } from '../types.ts';
import type { XenCalls } from './calls.ts';

/** Weights of both schedulers are 16-bit words, and 0 means "unchanged" (xen/common/sched/credit.c, credit2.c). */
const MAX_WEIGHT = 65_535;
/** Both take a cap in percent of one CPU. */
const PERCENT = 100;

/**
 * Weight and cap of a domain under the scheduler of its own CPU pool.
 * @param vcpus most vCPUs of the domain: neither scheduler gives it more CPUs
 * @returns undefined for a scheduler without weights (rtds, null, arinc653)
 */
export function xenScheduler(calls: XenCalls, domid: number, vcpus: number): DomainScheduler | undefined {
  // EINVAL means that the domain is not under that scheduler; the host's default may be another one.
  const name = (['credit2', 'credit'] as const).find((one) => calls.getCredit(domid, one) !== undefined);
  if (name === undefined) return undefined;
  const read = () => {
    const found = calls.getCredit(domid, name);
    if (found !== undefined) return found;
    throw new DomschedError(
      'capability-missing',
      `domain ${domid} was moved to another scheduler; attach to it anew`,
      {
        domid,
      },
    );
  };
  return {
    name,
    async get() {
      return read();
    },
    async set({ weight, cap }) {
      if (weight !== undefined && !(Number.isInteger(weight) && weight >= 1 && weight <= MAX_WEIGHT)) {
        throw new DomschedError('usage', `weight ${weight} is not in 1..${MAX_WEIGHT}`, { weight });
      }
      const most = vcpus * PERCENT;
      if (cap !== undefined && !(Number.isInteger(cap) && cap >= 0 && cap <= most)) {
        throw new DomschedError(
          'usage',
          `cap ${cap} is not in 0..${most} (percent of one CPU; 0 for none, ${PERCENT} for each of its vCPUs at most)`,
          { cap, most },
        );
      }
      // A call always sets both words, so read the one that is not given.
      const now = read();
      calls.setCredit(domid, name, { weight: weight ?? now.weight, cap: cap ?? now.cap });
      return read();
    },
  };
}
