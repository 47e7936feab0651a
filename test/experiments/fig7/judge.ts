/** Figure 7 (section 5.3): what looking at a domain costs the processes in it, against the interval. */
import { z } from 'zod';
import { median } from '../../bench/harness.ts';
import { type Estimate, estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS } from '../picture.ts';
import { atMost, onWhat, shown } from '../verdict.ts';

const SAMPLE = z.strictObject({
  intervalMs: z.number(),
  round: z.number(),
  way: z.enum(['none', 'ours', 'paper']),
  /** What each computed per second of the host. */
  pi1: z.number(),
  pi2: z.number(),
  /** Parts of the time in which the vCPU ran, and in which it was ready and had no CPU of the host. */
  ran: z.number(),
  waited: z.number(),
  looks: z.number(),
  cpuMsPerLook: z.number(),
});
export type Fig7Sample = z.infer<typeof SAMPLE>;

type LookingWay = Exclude<Fig7Sample['way'], 'none'>;
type Curve = 'pi1' | 'pi2' | 'both';

/**
 * Percent of its work that a process loses to the looks, round by round: windows of one round are compared. What the
 * vCPU computes while it runs counts for the time in which it waits for a CPU of the host, too: that time was taken by
 * whatever else the host does, and not by the looks, which have another CPU.
 */
export function losses(samples: readonly Fig7Sample[], way: LookingWay, of: Curve): number[] {
  const work = (sample: Fig7Sample) =>
    ((of === 'both' ? sample.pi1 + sample.pi2 : sample[of]) * (sample.ran + sample.waited)) / sample.ran;
  const rounds = [...new Set(samples.map(({ round }) => round))];
  return rounds.flatMap((round) => {
    const own = (which: Fig7Sample['way']) =>
      samples.find((sample) => sample.round === round && sample.way === which);
    const [none, looked] = [own('none'), own(way)];
    return none === undefined || looked === undefined ? [] : [100 * (1 - work(looked) / work(none))];
  });
}

/** The claim: lost work at one interval, ours by the paper's way, round by round. */
export function ratios(samples: readonly Fig7Sample[]): number[] {
  const theirs = losses(samples, 'paper', 'both');
  return losses(samples, 'ours', 'both').map((loss, round) => loss / theirs[round]!);
}

export const RATIO_LIMIT = 1 / 4;

export function parseFig7(raw: readonly RawSample[]): Fig7Sample[] {
  return raw.map((sample) => SAMPLE.parse(sample));
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = parseFig7(raw);
  const intervals = [...new Set(samples.map(({ intervalMs }) => intervalMs))].sort((a, b) => a - b);
  const at = (intervalMs: number) => samples.filter((sample) => sample.intervalMs === intervalMs);
  const lost = (intervalMs: number, way: LookingWay, of: Curve): Estimate =>
    estimate(losses(at(intervalMs), way, of));
  const shortest = intervals[0]!;
  const ratio = estimate(ratios(at(shortest)));
  const on = onWhat(setup);
  const per = (way: LookingWay, intervalMs: number, figure: (sample: Fig7Sample) => number) =>
    median(
      at(intervalMs)
        .filter((sample) => sample.way === way)
        .map(figure),
    );
  const rows = intervals.map((intervalMs) => [
    `${intervalMs} ms`,
    ...(['ours', 'paper'] as const).flatMap((way) => [
      shown(lost(intervalMs, way, 'pi1'), '%'),
      shown(lost(intervalMs, way, 'pi2'), '%'),
      per(way, intervalMs, ({ looks }) => looks).toFixed(0),
      per(way, intervalMs, ({ cpuMsPerLook }) => cpuMsPerLook).toFixed(2),
    ]),
  ]);
  const text = `The paper: pi1 and pi2 in one domain, and what they lose to the scheduler at intervals from 1 ms to 5 s; two curves. Ours, percent of
their work that pi1 and pi2 lose, against windows in which nobody looks (a minus means that more was done than in the windows without, which no look can bring about: so far the figures are off; what other work of the host took from the
vCPU is taken out, by the host’s own count):

${markdownTable(['interval', 'ours: pi1', 'pi2', 'looks in a window', 'CPU of the host per look, ms', 'the paper’s way: pi1', 'pi2', 'looks', 'CPU, ms'], rows)}

The paper’s way is a mode of this experiment: at each tick it pauses the domain, then reads the task on the CPU and those that wait, word by
word, each address walked through the guest’s page tables and each page mapped and unmapped for it. Ours is the product’s look
(\`Guest.take\`): all processes and run queues, in scatter reads of memory that is mapped all the time, of a domain that runs.

*What differs:* a pause by QEMU’s monitor costs more than Xen’s hypercall, and under the translator more than under KVM, so the paper’s way loses
more here than in the paper. The daemon itself does not look more often than every 10 ms; below that the look is
driven by this experiment. *Better:* a look does not stop the guest, whatever the interval. *Worse:* one look costs more CPU time of the host than
reading a few words would, because it reads all processes and checks them.`;
  const points = (['ours', 'paper'] as const).flatMap((way) =>
    (['pi1', 'pi2'] as const).flatMap((of) =>
      intervals.map((intervalMs) => {
        const { value, from, to } = lost(intervalMs, way, of);
        return {
          curve: `${way === 'ours' ? 'ours' : 'the paper’s way'}, ${of}`,
          intervalMs,
          value,
          from,
          to,
        };
      }),
    ),
  );
  const x = {
    field: 'intervalMs',
    type: 'quantitative',
    scale: { type: 'log' },
    title: 'interval, ms',
    axis: { values: intervals, format: '~d' },
  } as const;
  const y = { type: 'quantitative', title: 'work lost, %' } as const;
  const color = {
    field: 'curve',
    type: 'nominal',
    title: null,
    sort: null,
    scale: { range: [COLOURS[0], COLOURS[3], COLOURS[1], COLOURS[4]] },
  } as const;
  return {
    verdicts: [
      atMost(
        `At the shortest interval (${shortest} ms) ours costs at most a quarter of the paper’s way: lost work, ours by theirs`,
        RATIO_LIMIT,
        ratio,
        '',
        on,
      ),
    ],
    text,
    pictures: [
      {
        name: 'fig7',
        alt: 'Work that pi1 and pi2 lose, against the interval of the looks: ours, and the paper’s way',
        spec: {
          title: {
            text: 'What looking costs the processes of a domain',
            subtitle: 'as Figure 7 of the paper; medians, with intervals of 95 %',
          },
          width: 620,
          height: 300,
          data: { values: points },
          layer: [
            { mark: { type: 'line', point: true }, encoding: { x, y: { ...y, field: 'value' }, color } },
            {
              mark: { type: 'rule', strokeWidth: 1.5 },
              encoding: { x, y: { ...y, field: 'from' }, y2: { field: 'to' }, color },
            },
          ],
        },
      },
    ],
  };
}
