/** Figure 8 (section 5.4) where the paper drew it: on a Xen, with the daemon in dom0. */
import { z } from 'zod';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { DRAWN_MS, type Fig8Sample, judgeRun, judgeRuns } from '../fig8/judge.ts';
import { onWhat } from '../verdict.ts';

const COST = z.strictObject({
  intervalMs: z.number(),
  sentinelMs: z.number(),
  /** CPU time of the daemon, by dom0's own count, in so many ms of the host. */
  daemonMs: z.number(),
  elapsedMs: z.number(),
});
export type XenFig8Cost = z.infer<typeof COST>;

/** Others have the one CPU for so long between two turns of pi1, at most: some slices of Xen's scheduler, of 30 ms each. */
const TURN_MS = 150;

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const costs = raw.filter((sample) => 'daemonMs' in sample).map((sample) => COST.parse(sample));
  const seen = raw.filter((sample) => !('daemonMs' in sample)) as unknown as Fig8Sample[];
  const alone = seen.filter(({ intervalMs }) => intervalMs === 0);
  const { verdicts, table, drawn } = judgeRuns(
    seen.filter(({ intervalMs }) => intervalMs > 0),
    onWhat(setup),
    ', on Xen',
    TURN_MS,
  );
  const without = alone.length === 0 ? undefined : judgeRun(0, alone);
  const part = without && ((100 * without.wrongMs) / (without.seconds * 1000)).toFixed(1);
  const shares = costs.map(({ intervalMs, sentinelMs, daemonMs, elapsedMs }) => {
    const part = daemonMs / elapsedMs;
    const how =
      sentinelMs === 0
        ? `: ${(part * intervalMs).toFixed(0)} ms for a look and what it decides`
        : ', with its sentinel';
    return `${(100 * part).toFixed(0)} % (every ${intervalMs} ms${how})`;
  });
  const text = `The same domains, processes and policy on a Xen: U1 and U2 are PV domains, and the daemon runs in dom0.${part === undefined ? '' : ` With no daemon pi1 ran beside others in ${part} % of the time.`} With it:

${table}

Of the machine’s CPU the daemon had ${shares.join(', ')}.

That pi1 ran is seen from outside all of Xen, in the memory of the machine that QEMU emulates: pi1 counts, and has run if it has counted in the last 3 ms (so that each run
lasts up to 3 ms too long here). It does not begin anew where it was off the CPU for less than ${TURN_MS} ms, since Xen gives others their turns. Who else wanted a CPU is what the kernels of U1 and U2 say. Nothing in that machine takes part in looking.

*What differs:* one emulated CPU has both domains, dom0 and Xen. So pi1 makes way for pi4 even without us, as far as Xen’s scheduler has it: what is
a mistake is that it shares the CPU with pi4 instead of leaving it to it. *Better:* the daemon looks at both domains without a pause, and pauses U1 to edit only. *Worse:* a
daemon that is emulated shares its CPU with those that it schedules: what it takes is missing to all of them, and it waits for them: each of its looks is later than on QEMU, where it has a CPU beside them.

*Tried against what is missed:* the sentinel (a row), which costs the same CPU too, and a nice value before the host’s other work.`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'xen-fig8',
        alt: `Who ran when on Xen over ${DRAWN_MS / 1000} s: pi1 of U1 runs while pi2, pi3 and pi4 rest`,
        spec: drawn,
      },
    ],
  };
}
