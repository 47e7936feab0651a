/** What the paper has not: how soon a process that runs is off its CPU, by technique and kernel, and what sleeps or waits. */
import { z } from 'zod';
import { percentile } from '../../bench/harness.ts';
import { type Estimate, estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { type ClaimVerdict, countAtMost, onWhat, shown } from '../verdict.ts';

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
  /** The hogs of so many kernels, which run at once, were held by the end of its round. */
  together: z.number().optional(),
});
export type OffCpuSample = z.infer<typeof SAMPLE>;

const TARGETS = { hog: 'runs all the time', sleeper: 'sleeps', files: 'writes and reads files' } as const;

/** A row for each kernel, target and technique, or whatever else, oldest kernel first. */
function rowsOf(samples: readonly OffCpuSample[], by: (sample: OffCpuSample) => string) {
  const groups = Map.groupBy(samples, by);
  const oldestFirst = [...groups.values()].toSorted(([a], [b]) =>
    a!.kernel.localeCompare(b!.kernel, 'en', { numeric: true }),
  );
  return oldestFirst.map((group) => {
    const { kernel, target } = group[0]!;
    const technique = [...new Set(group.map((sample) => sample.technique))].sort().join(' or ');
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
}

/** What is claimed of holds, and the figures of each kind. */
export interface JudgedHolds {
  readonly verdict: ClaimVerdict;
  readonly table: string;
  /** Of hogs. */
  readonly drawn: PictureSpec;
}

/** @param on what they were taken on @param where the title of the picture says it too */
export function judgeHolds(raw: readonly RawSample[], on: string, where = ''): JudgedHolds {
  const samples = raw.map((sample) => SAMPLE.parse(sample));
  const rows = rowsOf(samples, ({ kernel, target, technique }) => `${kernel}|${target}|${technique}`);
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
  const verdict = countAtMost(
    'Each hold of what runs, sleeps or waits has the process stand still from its report on: holds after which it did not',
    0,
    unstill(samples),
    `of ${samples.length} holds`,
    on,
  );
  const hogs = rows
    .filter(({ target }) => target === 'hog')
    .map(({ kernel, technique, off }) => ({ way: `${kernel}, ${technique}`, technique, ...off }));
  return { verdict, table, drawn: picture(hogs, where) };
}

function unstill(samples: readonly OffCpuSample[]): number {
  return samples.filter(({ isOff }) => !isOff).length;
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const all = raw.map((sample) => SAMPLE.parse(sample));
  const atOnce = all.filter(({ together }) => together !== undefined);
  const { verdict, table, drawn } = judgeHolds(
    all.filter(({ together }) => together === undefined),
    onWhat(setup),
  );
  const text = `The paper takes ready processes off their run queues, and has no way to stop one that runs, sleeps or waits for its disk. Ours, from when
a hold is asked for until the process has run for the last time, seen in the guest’s memory by a thread that has nothing to do with domsched:

${table}

\`splice\` takes what is ready off its queue, so it waits for a moment at which the hog makes way for another one; \`state\` and \`park\` have it leave its CPU.
A kernel that is not in a row of a technique refuses that technique, with its reason (\`docs/techniques.md\`).

${atOnce.length === 0 ? '' : together(atOnce)}*What differs:* nothing of the paper’s to compare with. *Better:* all three kinds of targets are stopped, on kernels from 2.6.16’s layout on. *Worse:* under
the translator most of each time is QEMU’s own stop and go.`;
  return {
    verdicts: [
      verdict,
      ...(atOnce.length === 0
        ? []
        : [
            countAtMost(
              `Guests of ${atOnce[0]!.together} kernels run at once, and the hog of each is held while those of the others are: holds after which it did not stand still`,
              0,
              unstill(atOnce),
              `of ${atOnce.length} holds`,
              onWhat(setup),
            ),
          ]),
    ],
    text,
    pictures: [
      {
        name: 'off-cpu',
        alt: 'Time until a running hog is off its CPU, by kernel and technique',
        spec: drawn,
      },
    ],
  };
}

function together(samples: readonly OffCpuSample[]): string {
  const table = markdownTable(
    ['all at once: kernel', 'technique', 'holds', 'off its CPU after, ms', '90 %', 'pauses each'],
    rowsOf(samples, ({ kernel }) => kernel).map(({ kernel, technique, off, p90, holds, pauses }) => [
      kernel,
      technique,
      String(holds),
      shown(off),
      p90.toFixed(1),
      pauses.toFixed(1),
    ]),
  );
  return `Then all of these guests run at once, on the same CPUs of the host, and their hogs are held one after the other until all are, by
what domsched chooses for each kernel:

${table}

`;
}

function picture(
  values: readonly ({ way: string; technique: string } & Estimate)[],
  where: string,
): PictureSpec {
  const y = { field: 'way', type: 'nominal', title: null, sort: null, axis: { labelLimit: 240 } } as const;
  return {
    title: {
      text: `How soon a running process is off its CPU${where}`,
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
