import { DomschedError } from '../error.ts';
import type { DomainScheduler } from '../hypervisor/types.ts';

const WHY =
  'with split = true a share of CPU time can be read and not be set, because by it whoever has taken over the reader could starve a machine for good: write cpu.weight and cpu.max of its control group, or set split = false';

/** A machine's share, which everybody may read in the files of its control group. */
export function readOnlyShare({ name, get, cappedNs }: DomainScheduler): DomainScheduler {
  const set = async () => {
    throw new DomschedError('refused', WHY, {});
  };
  return { name, get, ...(cappedNs && { cappedNs }), set, readOnly: WHY };
}
