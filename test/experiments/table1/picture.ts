/** What a word costs, step by step, for whom: drawn alike on QEMU and on Xen. */
import type { Estimate } from '../../bench/pairs.ts';
import { COLOURS, type PictureSpec, SIDE_LABEL } from '../picture.ts';

export const STEP_NAMES = {
  pause: 'pause and resume',
  translate: 'translate the address',
  map: 'map and unmap',
  word: 'read the word',
} as const;
export interface CostPoint {
  readonly who: string;
  readonly step: string;
  readonly us: number;
  readonly from?: number;
  readonly to?: number;
}

export function point(who: string, step: keyof typeof STEP_NAMES, { value, from, to }: Estimate): CostPoint {
  return { who, step: STEP_NAMES[step], us: value, from, to };
}

/** @param who in the order of rows: the paper, its way here, ours */
export function picture(points: readonly CostPoint[], title: string, who: readonly string[]): PictureSpec {
  const y = { field: 'who', type: 'nominal', sort: [...who], title: null } as const;
  const most = Math.max(...points.map(({ us, to }) => to ?? us));
  const least = Math.min(1, ...points.map(({ us, from }) => from ?? us));
  const x = {
    type: 'quantitative',
    title: 'µs',
    scale: {
      type: 'log',
      domain: [10 ** Math.floor(Math.log10(least)), 10 ** Math.ceil(Math.log10(most) + 0.3)],
      nice: false,
    },
    axis: { values: [1, 10, 100, 1_000, 10_000, 100_000], format: '~s' },
  } as const;
  const axis = {
    ...x,
    scale: { ...x.scale, domain: [...x.scale.domain] },
    axis: { ...x.axis, values: [...x.axis.values] },
  };
  return {
    title: {
      text: title,
      subtitle:
        'as Table 1 of the paper; µs on a logarithmic scale, medians with intervals of 95 %; the paper’s word took 0.00',
    },
    data: { values: [...points] },
    facet: {
      row: {
        field: 'step',
        type: 'nominal',
        title: null,
        sort: Object.values(STEP_NAMES),
        header: SIDE_LABEL,
      },
    },
    spec: {
      width: 480,
      height: { step: 20 },
      layer: [
        {
          mark: { type: 'rule', strokeWidth: 2 },
          encoding: { y, x: { ...axis, field: 'from' }, x2: { field: 'to' }, color: { value: COLOURS[2] } },
        },
        {
          mark: { type: 'point', filled: true, size: 70, opacity: 1 },
          encoding: {
            y,
            x: { ...axis, field: 'us' },
            color: {
              field: 'who',
              type: 'nominal',
              legend: null,
              scale: { domain: [...who], range: [COLOURS[2], COLOURS[1], COLOURS[0], COLOURS[3]] },
            },
          },
        },
        {
          mark: { type: 'text', align: 'center', dy: -9, fontSize: 10.5 },
          encoding: {
            y,
            x: { ...axis, field: 'us' },
            text: {
              field: 'us',
              format: '.3~s',
              condition: { test: 'datum.us < 1', field: 'us', format: '.2f' },
            },
          },
        },
      ],
    },
  };
}
