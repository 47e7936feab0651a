import { optionalField } from '../layout/members.ts';
import { advance, type GuestVirtual } from '../memory/address.ts';
import type { Guest } from './guest.ts';

/**
 * Addresses of words that change whenever the guest's kernel schedules or takes a tick. If all are unchanged, it has
 * done neither, and an edit of its schedulers can be undone as if it had never begun.
 */
export function progressWords(guest: Guest): GuestVirtual[] {
  const { layout } = guest;
  const words = guest.cpus.flatMap((cpu) => {
    const queue = guest.percpu('runqueues', cpu);
    // 2.6.16 notes the time of each CPU's last tick; later kernels have a clock per queue.
    return (['nr_switches', 'clock', 'timestamp_last_tick'] as const)
      .map((name) => optionalField(layout, 'rq', name))
      .filter((member) => member !== undefined)
      .map(({ offset }) => advance(queue, offset));
  });
  const jiffies = guest.symbol('jiffies_64') ?? guest.symbol('jiffies');
  return jiffies === undefined ? words : [...words, jiffies];
}
