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
  seconds: z.number(),
  /** That were served, each of them whole. */
  pages: z.number(),
  /** CPU time that the machines of the two domains had meanwhile, all of it of the one CPU that they share. */
  webMs: z.number(),
  otherMs: z.number(),
});
export type Fig6Sample = z.infer<typeof SAMPLE>;
/** At the end, with nobody to serve: checks that tripwire finished under the policy, and files of each. */
const FINISH = z.strictObject({ finished: z.number(), scanned: z.number() });

export const PAPER_PERCENT = 0.8;
export const LIMIT_PERCENT = 0.5;

export const MODES = {
  'one domain': 'lighttpd and tripwire in one domain',
  'two domains': 'lighttpd and tripwire in two domains',
  held: 'in two domains, tripwire under `idle-only`',
} as const;

const perSecond = ({ pages, seconds }: Fig6Sample) => pages / seconds;
/** Time of the domains' CPU that a page takes, ms. What other work of the host has of that CPU is not in it. */
const perPage = ({ webMs, otherMs, pages }: Fig6Sample) => (webMs + otherMs) / pages;
/** Percent of that CPU that the other domain has. */
const share = ({ otherMs, seconds }: Fig6Sample) => otherMs / (10 * seconds);

/** What a mode gives against lighttpd alone in the same round. */
export function besideAlone<S extends Pick<Fig6Sample, 'round' | 'mode'>>(
  samples: readonly S[],
  mode: Fig6Sample['mode'],
  compare: (alone: S, beside: S) => number,
): number[] {
  return samples
    .filter((sample) => sample.mode === mode)
    .flatMap((sample) => {
      const alone = samples.find((one) => one.round === sample.round && one.mode === 'alone');
      return alone === undefined ? [] : [compare(alone, sample)];
    });
}

/** Percent by which lighttpd is slower than alone, where it wants all of the CPU. */
export function slowerBy(samples: readonly Fig6Sample[], mode: Fig6Sample['mode']): number[] {
  return besideAlone(samples, mode, (alone, beside) => 100 * (1 - perPage(alone) / perPage(beside)));
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = raw.filter((sample) => 'mode' in sample).map((sample) => SAMPLE.parse(sample));
  const finish = FINISH.parse(raw.find((sample) => 'finished' in sample));
  const on = onWhat(setup);
  const rows = (Object.keys(MODES) as (keyof typeof MODES)[]).map((mode) => ({
    mode,
    perSecond: median(samples.filter((sample) => sample.mode === mode).map(perSecond)),
    fewer: estimate(
      besideAlone(samples, mode, (one, beside) => 100 * (1 - perSecond(beside) / perSecond(one))),
    ),
    slower: estimate(slowerBy(samples, mode)),
    more: estimate(besideAlone(samples, mode, (one, beside) => share(beside) - share(one))),
  }));
  const alone = median(samples.filter(({ mode }) => mode === 'alone').map(perSecond));
  const held = rows.find(({ mode }) => mode === 'held')!;
  const verdicts: ClaimVerdict[] = [
    atMost(
      `With tripwire under \`idle-only\`, lighttpd is at most ${LIMIT_PERCENT} % slower than alone, by the CPU time of both domains that a page takes`,
      LIMIT_PERCENT,
      held.slower,
      '%',
      on,
    ),
    atMost(
      `While lighttpd serves, tripwire’s domain takes at most ${LIMIT_PERCENT} % of their CPU under \`idle-only\`, beside what it takes when its own guest has stopped tripwire`,
      LIMIT_PERCENT,
      held.more,
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
  [
    ...['', 'pages per second, median', 'fewer than alone, %'],
    ...['slower than alone, by CPU time a page, %', 'the other domain takes of the CPU, more than alone, %'],
  ],
  [
    ['lighttpd alone', alone.toFixed(0), '–', '–', '–'],
    ...rows.map(({ mode, perSecond: pages, fewer, slower, more }) => [
      MODES[mode],
      pages.toFixed(0),
      shown(fewer),
      shown(slower),
      shown(more),
    ]),
  ],
)}

Both programs are Debian’s, in a root that is made of its packages; the client checks the length of each page, and tripwire has to find nothing changed.
Each round has lighttpd alone and with tripwire held right after each other, and is compared within itself; the daemon is there all the time and stands still
while it is not its turn; the client has been served for a while before a window begins, so that tripwire is held by then.

Pages per second say little here: the client waits for each page before it asks for the next, so that whatever else the host does, with the client’s CPU, QEMU’s network
or the domains’, makes it wait, and windows in which lighttpd is alone differ by half. So it is judged by the time of the domains’ CPU that a page takes, both domains’ together, as the
host’s kernel counts it: by so much fewer pages are served where lighttpd wants all of that CPU, and what others take of it is not in it.

*What differs:* one CPU of the host has both domains, the network is QEMU’s own (\`user\`), and the client and the daemon share the other CPU, where the paper’s
client was another machine: what the daemon takes of it makes the client wait. *Better:*
the intervals say what is noise. *Worse:* where the interval has the limit inside, more rounds are needed: the full form has ten times as many, of longer windows. What a page costs under the translator differs from one moment to the next by some percent.`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'fig6',
        alt: 'How much slower lighttpd is than alone: with tripwire in its domain, in another, and held',
        spec: picture(
          rows.map(({ mode, slower }) => ({ mode: MODES[mode].replaceAll('`', ''), ...slower })),
          'How much slower lighttpd is than alone',
          'percent of the CPU time that a page takes',
        ),
      },
    ],
  };
}

/** @param of what a bar is of */
export function picture(
  values: readonly {
    readonly mode: string;
    readonly value: number;
    readonly from: number;
    readonly to: number;
  }[],
  title: string,
  of: string,
): PictureSpec {
  const y = { field: 'mode', type: 'nominal', title: null, sort: null, axis: { labelLimit: 600 } } as const;
  return {
    title: {
      text: title,
      subtitle: `as Figure 6 of the paper; ${of}, medians with intervals of 95 %; dashed: the paper’s ${PAPER_PERCENT} % with tripwire held`,
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
