/** Table 1 (section 5.1) where the paper measured it: on a Xen, beside a C program that works as its prototype did. */
import { z } from 'zod';
import { median } from '../../bench/harness.ts';
import { type Estimate, estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { PAPER } from '../table1/judge.ts';
import { type CostPoint, picture, point } from '../table1/picture.ts';
import { atMost, onWhat, shown } from '../verdict.ts';

const SAMPLE = z.strictObject({
  way: z.enum(['ours', 'paper']),
  /** Both ways have one, right after each other. */
  turn: z.number(),
  pauseUs: z.number(),
  translateUs: z.number(),
  mapUs: z.number(),
  wordUs: z.number(),
});
export type XenTable1Sample = z.infer<typeof SAMPLE>;
type Figure = (sample: XenTable1Sample) => number;

const rest: Figure = ({ translateUs, mapUs, wordUs }) => translateUs + mapUs + wordUs;
const all: Figure = (sample) => sample.pauseUs + rest(sample);
/** What the pause may cost, by two hypercalls alone. */
const PAUSE_LIMIT = 3;

/** Turn by turn, medians of both ways: ours by theirs. */
export function ratios(samples: readonly XenTable1Sample[], figure: Figure): number[] {
  const turns = [...new Set(samples.map(({ turn }) => turn))];
  return turns.map((turn) => {
    const of = (way: XenTable1Sample['way']) =>
      median(samples.filter((one) => one.turn === turn && one.way === way).map(figure));
    return of('ours') / of('paper');
  });
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = raw.map((sample) => SAMPLE.parse(sample));
  const of = (way: XenTable1Sample['way'], figure: Figure): Estimate =>
    estimate(samples.filter((sample) => sample.way === way).map(figure));
  const on = onWhat(setup);
  const steps = [
    ['pause and resume', 'pause', ({ pauseUs }) => pauseUs],
    ['translate the address', 'translate', ({ translateUs }) => translateUs],
    ['map and unmap', 'map', ({ mapUs }) => mapUs],
    ['read the word', 'word', ({ wordUs }) => wordUs],
  ] as const satisfies readonly (readonly [string, keyof typeof PAPER, Figure])[];
  const rows = steps.map(([name, step, figure]) => [
    name,
    PAPER[step].toFixed(2),
    shown(of('paper', figure)),
    step === 'map' ? 'none' : shown(of('ours', figure)),
    step === 'map' ? '–' : shown(estimate(ratios(samples, figure))),
  ]);
  const sum = Object.values(PAPER).reduce((total: number, us) => total + us, 0);
  rows.push([
    'all of it',
    sum.toFixed(2),
    shown(of('paper', all)),
    shown(of('ours', all)),
    shown(estimate(ratios(samples, all))),
  ]);
  const pauses = ratios(samples, ({ pauseUs }) => pauseUs);
  const theirs = of('paper', (sample) => rest(sample) / sample.pauseUs);
  const verdicts = [
    atMost(
      'Nothing but the pause dominates: all the rest by the pause',
      1,
      of('ours', (sample) => rest(sample) / sample.pauseUs),
      '',
      `${on} Of the C program’s way, in turn with ours, it is ${shown(theirs)} times the pause, in the paper ${((PAPER.translate + PAPER.map) / PAPER.pause).toFixed(2)} times.`,
    ),
    atMost(
      'Translation, mapping and the word cost less than with the C program: ours by theirs',
      1,
      estimate(ratios(samples, rest)),
      '',
      on,
    ),
    atMost(
      'All of it, with the pause, costs less: ours by theirs',
      1,
      estimate(ratios(samples, all)),
      '',
      on,
    ),
    atMost(
      `The pause and its end cost at most ${PAUSE_LIMIT} times the C program’s two hypercalls: ours by theirs`,
      PAUSE_LIMIT,
      estimate(pauses),
      '',
      `${on} Ours asks what the domain is before, when it stands and whether it still stands for us, and writes down whose pause it is.`,
    ),
  ];
  const count = samples.filter(({ way }) => way === 'ours').length;
  const text = `As above, but on a Xen as the paper’s: its own libraries alone in a C program that does each step anew for each word, as the paper’s prototype did, and
domsched, on the same domain in the same boot, in turns of a few words each (${count} words each way):

${markdownTable(
  ['one word of a paused domain, µs', 'paper', 'C, the paper’s way', 'ours', 'ours by theirs'],
  rows,
)}

*What differs:* this Xen and its dom0 are emulated, so that two hypercalls cost ${(of('paper', ({ pauseUs }) => pauseUs).value / PAPER.pause).toFixed(0)} times what the paper’s cost, and what Node.js computes between them more than that.
Only ratios say something. *Better:* the translation, which was the paper’s greatest cost: a frame that was read once stays mapped, and a page table is
compared instead of walked by the hypervisor; and no page is mapped for a word. *Worse:* the pause. Two hypercalls would do; ours asks three times more, so
that nobody else’s pause is ever ended and none of ours outlives us, and Node.js does that from JavaScript. A tick pays the pause once for all of its words.

*Tried against what is missed:* signal handlers that stay instead of being set for each pause, a list of dom0’s processes only where there is a new one, and a note in shared
memory instead of a line through a pipe to the process beside us (\`runtime/hypervisor/xen/README.md\`).`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'xen-table1',
        alt: 'What one word of a paused domain costs on Xen, step by step: the paper, a C program of its way here, and ours',
        spec: picture(pointsOf(of), 'One word of a paused domain on Xen, step by step', WHO),
      },
    ],
  };
}

const WHO = ['paper', 'C, the paper’s way', 'ours'];

function pointsOf(of: (way: XenTable1Sample['way'], figure: Figure) => Estimate): CostPoint[] {
  const own = (way: XenTable1Sample['way'], who: string) => [
    point(
      who,
      'pause',
      of(way, ({ pauseUs }) => pauseUs),
    ),
    point(
      who,
      'translate',
      of(way, ({ translateUs }) => translateUs),
    ),
    point(
      who,
      'word',
      of(way, ({ wordUs }) => wordUs),
    ),
  ];
  const paper = (['pause', 'translate', 'map'] as const).map((step) => {
    const us = PAPER[step];
    return point(WHO[0]!, step, { value: us, from: us, to: us });
  });
  return [
    ...paper,
    ...own('paper', WHO[1]!),
    point(
      WHO[1]!,
      'map',
      of('paper', ({ mapUs }) => mapUs),
    ),
    ...own('ours', WHO[2]!),
  ];
}
