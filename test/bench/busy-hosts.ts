import { run } from '../runtime/daemon/fake-daemon.ts';
import { O1_KERNEL, SyntheticGuest, type SyntheticTask } from '../runtime/guest/synthetic.ts';

export const TASKS = 50;

/** Guests in memory, of 50 tasks each. In every second one something runs between any two looks; the others idle. */
export async function busyGuests(domains: number): Promise<{ guests: SyntheticGuest[]; work: () => void }> {
  const tasks = Array.from({ length: TASKS }, (_, i) => ({
    pid: i + 1,
    comm: i === 0 ? 'init' : `worker-${i}`,
    cpu: i % 2,
    state: 'sleeping',
    ...(i > 0 && { ppid: 1 }),
  })) as SyntheticTask[];
  const guests = await Promise.all(
    Array.from({ length: domains }, (_, i) =>
      SyntheticGuest.make({ kernel: O1_KERNEL, name: `d${i}`, tasks: tasks.map((task) => ({ ...task })) }),
    ),
  );
  const busy = guests.filter((_, i) => i % 2 === 0);
  return {
    guests,
    work: () => {
      for (const guest of busy) run(guest, 10, 1);
    },
  };
}
