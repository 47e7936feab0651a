/** What the paper has not: how soon a process that runs is off its CPU, by technique and kernel, and what sleeps or waits. */
import { z } from 'zod';
import { percentile } from '../../bench/harness.ts';
import { type Estimate, estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { countAtMost, onWhat, shown } from '../verdict.ts';

const SAMPLE = z.strictObject({
  kernel: z.string(),
  target: z.enum(['hog', 'sleeper', 'files']),
  technique: z.enum(['splice', 'state', 'park']),
  /** From when the hold was asked for until the target ran for the last time. */
  offMs: z.number(),
  /** Until the hold was reported. */
  returnedMs: z.number(),
  attempts: z.number(),
  pausedUs: z.number(),
  /** It stood still from the report on. */
  isOff: z.boolean(),
});
export type OffCpuSample = z.infer<typeof SAMPLE>;

const TARGETS = { hog: 'runs all the time', sleeper: 'sleeps', files: 'writes and reads files' } as const;

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = raw.map((sample) => SAMPLE.parse(sample));
  const groups = Map.groupBy(samples, ({ kernel, target, technique }) => `${kernel}|${target}|${technique}`);
  const oldestFirst = [...groups.values()].toSorted(([a], [b]) =>
    a!.kernel.localeCompare(b!.kernel, 'en', { numeric: true }),
  );
  const rows = oldestFirst.map((group) => {
    const { kernel, target, technique } = group[0]!;
    const off = group.map(({ offMs }) => offMs);
    const sum = group.reduce((total, { attempts }) => total + attempts, 0);
    return {
      kernel,
      target,
      technique,
      off: estimate(off),
      p90: percentile(off, 0.9),
      holds: group.length,
      pauses: sum / group.length,
    };
  });
  const still = samples.filter(({ isOff }) => !isOff).length;
  const table = markdownTable(
    ['kernel', 'target', 'technique', 'holds', 'off its CPU after, ms', '90 %', 'pauses each'],
    rows.map(({ kernel, target, technique, off, p90, holds, pauses }) => [
      kernel,
      TARGETS[target],
      technique,
      String(holds),
      shown(off),
      p90.toFixed(1),
      pauses.toFixed(1),
    ]),
  );
  const text = `The paper takes ready processes off their run queues, and has no way to stop one that runs, sleeps or waits for its disk. Ours, from when
a hold is asked for until the process has run for the last time, seen in the guest’s memory by a thread that has nothing to do with domsched:

${table}

\`splice\` takes what is ready off its queue, so it waits for a moment at which the hog makes way for another one; \`state\` and \`park\` have it leave its CPU.
A kernel that is not in a row of a technique refuses that technique, with its reason (\`docs/techniques.md\`).

*What differs:* nothing of the paper’s to compare with. *Better:* all three kinds of targets are stopped, on kernels from 2.6.16’s layout on. *Worse:* under
the translator most of each time is QEMU’s own stop and go.`;
  return {
    verdicts: [
      countAtMost(
        'Each hold of what runs, sleeps or waits has the process stand still from its report on: holds after which it did not',
        0,
        still,
        `of ${samples.length} holds`,
        onWhat(setup),
      ),
    ],
    text,
    pictures: [
      {
        name: 'off-cpu',
        alt: 'Time until a running hog is off its CPU, by kernel and technique',
        spec: picture(
          rows
            .filter(({ target }) => target === 'hog')
            .map(({ kernel, technique, off }) => ({ way: `${kernel}, ${technique}`, technique, ...off })),
        ),
      },
    ],
  };
}

function picture(values: readonly ({ way: string; technique: string } & Estimate)[]): PictureSpec {
  const y = { field: 'way', type: 'nominal', title: null, sort: null, axis: { labelLimit: 240 } } as const;
  return {
    title: {
      text: 'How soon a running process is off its CPU',
      subtitle: 'ms from when the hold is asked for; medians, with intervals of 95 %',
    },
    data: { values: [...values] },
    width: 520,
    height: { step: 22 },
    layer: [
      {
        mark: { type: 'rule', strokeWidth: 2 },
        encoding: {
          y,
          x: { field: 'from', type: 'quantitative', title: 'ms' },
          x2: { field: 'to' },
          color: { value: COLOURS[2] },
        },
      },
      {
        mark: { type: 'point', filled: true, size: 70, opacity: 1 },
        encoding: {
          y,
          x: { field: 'value', type: 'quantitative' },
          color: { field: 'technique', type: 'nominal', title: null },
        },
      },
    ],
  };
}
