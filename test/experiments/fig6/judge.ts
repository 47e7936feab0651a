/** Figure 6 (section 5.2): a web server and an intrusion detector, and the detector held while the server works. */
import { z } from 'zod';
import { median } from '../../bench/harness.ts';
import { estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { atMost, type ClaimVerdict, onWhat, shown } from '../verdict.ts';

const SAMPLE = z.strictObject({
  round: z.number(),
  mode: z.enum(['alone', 'one domain', 'two domains', 'held']),
  /** Requests that were answered in a second. */
  perSecond: z.number(),
});
export type Fig6Sample = z.infer<typeof SAMPLE>;
/** At the end, with nobody to serve: checks that tripwire finished under the policy, and files of each. */
const FINISH = z.strictObject({ finished: z.number(), scanned: z.number() });

const PAPER_PERCENT = 0.8;
const LIMIT_PERCENT = 0.5;

const MODES = {
  'one domain': 'lighttpd and tripwire in one domain',
  'two domains': 'lighttpd and tripwire in two domains',
  held: 'in two domains, tripwire under `idle-only`',
} as const;

/** Percent by which a mode serves less than lighttpd alone in the same round. */
export function slowerBy(samples: readonly Fig6Sample[], mode: Fig6Sample['mode']): number[] {
  return samples
    .filter((sample) => sample.mode === mode)
    .flatMap(({ round, perSecond }) => {
      const alone = samples.find((one) => one.round === round && one.mode === 'alone');
      return alone === undefined ? [] : [100 * (1 - perSecond / alone.perSecond)];
    });
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = raw.filter((sample) => 'mode' in sample).map((sample) => SAMPLE.parse(sample));
  const finish = FINISH.parse(raw.find((sample) => 'finished' in sample));
  const on = onWhat(setup);
  const rows = (Object.keys(MODES) as (keyof typeof MODES)[]).map((mode) => ({
    mode,
    perSecond: median(samples.filter((sample) => sample.mode === mode).map(({ perSecond }) => perSecond)),
    slower: estimate(slowerBy(samples, mode)),
  }));
  const alone = median(samples.filter(({ mode }) => mode === 'alone').map(({ perSecond }) => perSecond));
  const held = rows.find(({ mode }) => mode === 'held')!;
  const verdicts: ClaimVerdict[] = [
    atMost(
      'With tripwire under `idle-only`, lighttpd is at most 0.5 % slower than alone',
      LIMIT_PERCENT,
      held.slower,
      '%',
      on,
    ),
    {
      claim: 'tripwire still finishes',
      outcome: finish.finished > 0 ? 'met' : 'missed',
      found: `${finish.finished} checks of ${finish.scanned} files once nobody was served`,
      because: on,
    },
  ];
  const text = `The paper: lighttpd and tripwire in one domain, in two, and in two with tripwire run only while lighttpd rests: ${PAPER_PERCENT} % slower than lighttpd
alone. Ours:

${markdownTable(
  ['', 'requests per second, median', 'slower than alone, %'],
  [
    ['lighttpd alone', alone.toFixed(0), '–'],
    ...rows.map(({ mode, perSecond, slower }) => [MODES[mode], perSecond.toFixed(0), shown(slower)]),
  ],
)}

Both programs are Debian’s, in a root that is made of its packages; the client checks the length of each page, and tripwire has to find nothing changed.
Each round has all four, in turn, and is compared within itself; the client has served itself for a while before a window
begins, so that tripwire is held by then.

*What differs:* one CPU of the host has both domains, the network is QEMU’s own (\`user\`), and the daemon is started for each window of its own. *Better:*
the intervals say what is noise. *Worse:* where the interval has the limit inside, more rounds are needed: the full form has ten times as many, of longer windows.`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'fig6',
        alt: 'How much slower lighttpd is than alone: with tripwire in its domain, in another, and held',
        spec: picture(rows.map(({ mode, slower }) => ({ mode: MODES[mode].replaceAll('`', ''), ...slower }))),
      },
    ],
  };
}

function picture(
  values: readonly {
    readonly mode: string;
    readonly value: number;
    readonly from: number;
    readonly to: number;
  }[],
): PictureSpec {
  const y = { field: 'mode', type: 'nominal', title: null, sort: null, axis: { labelLimit: 600 } } as const;
  return {
    title: {
      text: 'How much slower lighttpd is than alone',
      subtitle: `as Figure 6 of the paper; percent, medians with intervals of 95 %; dashed: the paper’s ${PAPER_PERCENT} % with tripwire held`,
    },
    width: 480,
    height: { step: 40 },
    data: { values: [...values] },
    layer: [
      {
        mark: { type: 'bar', height: 20 },
        encoding: {
          y,
          x: { field: 'value', type: 'quantitative', title: '%' },
          color: { value: COLOURS[0] },
        },
      },
      {
        mark: { type: 'rule', strokeWidth: 2 },
        encoding: {
          y,
          x: { field: 'from', type: 'quantitative' },
          x2: { field: 'to' },
          color: { value: COLOURS[1] },
        },
      },
      {
        mark: { type: 'rule', strokeDash: [4, 4] },
        encoding: { x: { datum: PAPER_PERCENT }, color: { value: COLOURS[2] } },
      },
    ],
  };
}
