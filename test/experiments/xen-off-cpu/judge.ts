/** How soon a process that runs, sleeps or waits is off its CPU, on a Xen. */
import { median } from '../../bench/harness.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { judgeHolds, type OffCpuSample } from '../off-cpu/judge.ts';
import { onWhat } from '../verdict.ts';

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const { verdict, table, drawn } = judgeHolds(raw, onWhat(setup), ', on Xen');
  const samples = raw as unknown as readonly OffCpuSample[];
  const pausedMs = median(samples.map(({ pausedUs }) => pausedUs)) / 1000;
  const toldMs = median(samples.map(({ returnedMs }) => returnedMs));
  const text = `As above, in a PV domain of a Xen: from when dom0 is told to hold until the process has run for the last time, seen in the memory of the
machine that QEMU emulates, by a thread outside all of Xen:

${table}

A hold has the domain paused for ${pausedMs.toFixed(0)} ms in all, and is reported to the outside after ${toldMs.toFixed(0)} ms (medians).

*What differs:* dom0, which is told over a port and then looks and edits, has the same CPU as the domain, and Xen puts dom0 first. So the process runs no more
almost as soon as dom0 is told, but for moments in which the domain goes on for the tick after an edit. *Better:* nothing has to be waited for but that tick. *Worse:* all of it is
emulated, Node.js in dom0 most of all: the whole domain stands for most of a hold.`;
  return {
    verdicts: [verdict],
    text,
    pictures: [
      {
        name: 'xen-off-cpu',
        alt: 'Time until a running hog is off its CPU on Xen, by technique',
        spec: drawn,
      },
    ],
  };
}
