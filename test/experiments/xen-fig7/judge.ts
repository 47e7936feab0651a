/** Figure 7 (section 5.3) at one interval, on a Xen: what ticks cost the processes of a domain that shares its CPU with dom0. */
import { median } from '../../bench/harness.ts';
import { estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { type Fig7Sample, losses, parseFig7, RATIO_LIMIT, ratios } from '../fig7/judge.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { atMost, onWhat, shown } from '../verdict.ts';

const WHO = { ours: 'ours', paper: 'C, the paper’s way' } as const;
const CURVES = ['pi1', 'pi2', 'both'] as const;

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = parseFig7(raw);
  const { intervalMs } = samples[0]!;
  const rows = (['ours', 'paper'] as const).flatMap((way) =>
    CURVES.map((of) => ({ who: WHO[way], of, ...estimate(losses(samples, way, of)) })),
  );
  const looks = (way: Fig7Sample['way']) =>
    median(samples.filter((sample) => sample.way === way).map((sample) => sample.looks));
  const table = markdownTable(
    [`a look every ${intervalMs} ms: work lost`, 'pi1', 'pi2', 'both', 'looks each time'],
    (['ours', 'paper'] as const).map((way) => [
      WHO[way],
      ...rows.filter(({ who }) => who === WHO[way]).map((row) => shown(row, '%')),
      looks(way).toFixed(0),
    ]),
  );
  const text = `One point of the curve, every ${intervalMs} ms, where the paper’s way has time for a look between two of them on this emulated machine. The C program pauses the domain and reads the task on
its CPU and those that wait, word by word, each address translated by the hypervisor and each page mapped and unmapped for it. Ours is the product’s look, all processes and run
queues. Percent of their work that pi1 and pi2 lose, against windows in which nobody looks:

${table}

*What differs:* dom0 and the domain share one CPU, so that all that a look costs is missing to pi1 and pi2, and not only a pause: what a look of ours computes on a CPU of its own,
as on QEMU above, is lost to nobody. *Better:* a look of ours does not stop the domain, and makes next to no hypercalls. *Worse:* it is Node.js, emulated, on that same CPU, and reads and checks all processes where
the C program reads those that are ready.`;
  return {
    verdicts: [
      atMost(
        `At this interval (${intervalMs} ms) ours costs at most a quarter of the paper’s way: lost work, ours by theirs`,
        RATIO_LIMIT,
        estimate(ratios(samples)),
        '',
        onWhat(setup),
      ),
    ],
    text,
    pictures: [
      {
        name: 'xen-fig7',
        alt: `Work that pi1 and pi2 lose on Xen to a look every ${intervalMs} ms: ours, and a C program of the paper’s way`,
        spec: picture(
          rows.filter(({ of }) => of !== 'both').map((row) => ({ ...row, row: `${row.who}: ${row.of}` })),
          intervalMs,
        ),
      },
    ],
  };
}

function picture(values: readonly { who: string; row: string }[], intervalMs: number): PictureSpec {
  const y = { field: 'row', type: 'nominal', title: null, sort: null, axis: { labelLimit: 240 } } as const;
  const color = {
    field: 'who',
    type: 'nominal',
    title: null,
    sort: null,
    legend: null,
    scale: { range: [COLOURS[0], COLOURS[1]] },
  } as const;
  const colored = { ...color, scale: { range: [...color.scale.range] } };
  return {
    title: {
      text: 'What looking costs the processes of a domain, on Xen',
      subtitle: `as one point of Figure 7 of the paper: a look every ${intervalMs} ms; medians, with intervals of 95 %`,
    },
    data: { values: [...values] },
    width: 520,
    height: { step: 26 },
    layer: [
      {
        mark: { type: 'rule', strokeWidth: 2 },
        encoding: {
          y,
          x: { field: 'from', type: 'quantitative', title: 'work lost, %' },
          x2: { field: 'to' },
          color: colored,
        },
      },
      {
        mark: { type: 'point', filled: true, size: 70, opacity: 1 },
        encoding: { y, x: { field: 'value', type: 'quantitative' }, color: colored },
      },
    ],
  };
}
