/** Figure 9 (section 5.5): a short job among pi processes of two domains that share one CPU. */
import { z } from 'zod';
import { median } from '../../bench/harness.ts';
import { type Estimate, estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { atMost, type ClaimVerdict, onWhat, shown } from '../verdict.ts';

const SAMPLE = z.strictObject({
  round: z.number(),
  mode: z.enum(['alone', 'loaded', 'preferred']),
  /** What the job computes, in ms of a CPU of its own. */
  cpuMs: z.number(),
  /** From when it was to wake until it had computed that. */
  tookMs: z.number(),
  weights: z.enum(['groups', 'nice', 'xen']),
});
export type Fig9Sample = z.infer<typeof SAMPLE>;

/** What is still near 1: a tenth more than alone. */
const NEAR = 1.1;
const BORDER_MS = 20;

/** How many times as long as alone in the same round. */
export function slowdowns(
  samples: readonly Fig9Sample[],
  mode: Exclude<Fig9Sample['mode'], 'alone'>,
  which: (cpuMs: number) => boolean,
): number[] {
  return samples
    .filter((sample) => sample.mode === mode && which(sample.cpuMs))
    .flatMap(({ round, cpuMs, tookMs }) => {
      const alone = samples.find((one) => one.mode === 'alone' && one.round === round && one.cpuMs === cpuMs);
      return alone === undefined ? [] : [tookMs / alone.tookMs];
    });
}

const WEIGHTS = {
  groups: 'Weights by control groups.',
  nice: 'Weights by nice values of the machines’ threads: no control groups here.',
  xen: 'Weights by Xen’s credit scheduler.',
} as const;

/** What is claimed of jobs, and the figures of each length. */
export interface JudgedJobs {
  readonly verdicts: readonly ClaimVerdict[];
  readonly table: string;
  readonly drawn: PictureSpec;
}

/** @param on what they were taken on @param where the title of the picture says it too */
export function judgeJobs(raw: readonly RawSample[], on: string, where = ''): JudgedJobs {
  const samples = raw.map((sample) => SAMPLE.parse(sample));
  const lengths = [...new Set(samples.map(({ cpuMs }) => cpuMs))].sort((a, b) => a - b);
  const rows = lengths.map((cpuMs) => ({
    cpuMs,
    aloneMs: median(
      samples.filter((one) => one.mode === 'alone' && one.cpuMs === cpuMs).map(({ tookMs }) => tookMs),
    ),
    loaded: estimate(slowdowns(samples, 'loaded', (ms) => ms === cpuMs)),
    preferred: estimate(slowdowns(samples, 'preferred', (ms) => ms === cpuMs)),
  }));
  const parts = [
    { claim: `of ${BORDER_MS} ms and more`, which: (ms: number) => ms >= BORDER_MS },
    { claim: `below ${BORDER_MS} ms`, which: (ms: number) => ms < BORDER_MS },
  ].filter(({ which }) => lengths.some(which));
  const weights = WEIGHTS[samples[0]?.weights ?? 'groups'];
  const verdicts = parts.map(({ claim, which }) =>
    atMost(
      `A preferred job ${claim} takes at most ${NEAR} times as long as alone`,
      NEAR,
      estimate(slowdowns(samples, 'preferred', which)),
      'times',
      `${on} ${weights}`,
    ),
  );
  const table = markdownTable(
    ['the job computes', 'alone, ms', 'loaded, times that', 'preferred, times that'],
    rows.map(({ cpuMs, aloneMs, loaded, preferred }) => [
      `${cpuMs} ms`,
      aloneMs.toFixed(1),
      shown(loaded),
      shown(preferred),
    ]),
  );
  const points = rows.flatMap(({ cpuMs, loaded, preferred }) => [
    { mode: 'loaded', cpuMs, ...loaded },
    { mode: 'preferred', cpuMs, ...preferred },
  ]);
  return { verdicts, table, drawn: picture(points, lengths, where) };
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const { verdicts, table, drawn } = judgeJobs(raw, onWhat(setup));
  const text = `The paper: a short job sleeps, then computes for 1 to 200 ms, among pi processes of domains A and B that share one physical CPU. Preferred, by
the weights 256 and 64 of the domains and the nice values −20 and 19 of the processes, it takes about as long as alone from 20 ms on. Ours:

${table}

Each round has all three modes, in turn, and a job is compared with the same job alone in its round; a job’s time begins when it was to wake. The nice values are
written by domsched into the running guests, the weights are those of the domains’ control groups.

*What differs:* the CPU is also shared with whatever else the host does: 256 and 64 are each multiplied by 16 against that. *Better:* jobs below 20 ms are
measured too. *As it must be:* a weight of 256 beside 64 leaves a domain ${((100 * 256) / (256 + 64)).toFixed(0)} % of a CPU that both want all the time, so that a
job which is long beside the host’s time slices takes ${((256 + 64) / 256).toFixed(2)} times as long as alone; a shorter one profits from its sleep before. *Worse:* a machine of QEMU’s has other threads than its vCPU’s in its group, and under the translator a wake-up goes through them.`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'fig9',
        alt: 'How many times as long as alone a short job takes, loaded and preferred, against what it computes',
        spec: drawn,
      },
    ],
  };
}

function picture(
  values: readonly ({ readonly mode: string; readonly cpuMs: number } & Estimate)[],
  lengths: readonly number[],
  where: string,
): PictureSpec {
  const x = { field: 'cpuMs', type: 'quantitative', title: 'the job computes, ms' } as const;
  const scaled = { ...x, scale: { type: 'log' as const }, axis: { values: [...lengths], format: '~d' } };
  const y = { type: 'quantitative', title: 'times as long as alone' } as const;
  const color = {
    field: 'mode',
    type: 'nominal',
    title: null,
    scale: { range: [COLOURS[1], COLOURS[0]] },
  } as const;
  const colored = { ...color, scale: { range: [...color.scale.range] } };
  return {
    title: {
      text: `A short job among others of two domains on one CPU${where}`,
      subtitle: 'as Figure 9 of the paper; medians, with intervals of 95 %',
    },
    width: 620,
    height: 280,
    data: { values: [...values] },
    layer: [
      {
        mark: { type: 'line', point: true },
        encoding: { x: scaled, y: { ...y, field: 'value' }, color: colored },
      },
      {
        mark: { type: 'rule', strokeWidth: 1.5 },
        encoding: { x: scaled, y: { ...y, field: 'from' }, y2: { field: 'to' }, color: colored },
      },
      {
        mark: { type: 'rule', strokeDash: [4, 4] },
        encoding: { y: { datum: 1 }, color: { value: COLOURS[2] } },
      },
    ],
  };
}
