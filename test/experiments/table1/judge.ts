/** Table 1 (section 5.1): what it costs to read one word of a paused domain, step by step. */
import { z } from 'zod';
import { estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { atMost, onWhat, shown } from '../verdict.ts';
import { picture, point, STEP_NAMES } from './picture.ts';

const STEPS = z.strictObject({
  pause: z.enum(['QMP', 'process']),
  pauseUs: z.number(),
  translateUs: z.number(),
  wordUs: z.number(),
  paperTranslateUs: z.number(),
  paperMapUs: z.number(),
  paperWordUs: z.number(),
});
export type Table1Sample = z.infer<typeof STEPS>;
const THREADS = z.strictObject({ pause: z.literal('threads'), pauseUs: z.number() });

/** In µs. */
export const PAPER = { pause: 14.84, translate: 68.95, map: 13.72, word: 0 } as const;

const PAUSES = { QMP: 'QEMU’s monitor', process: 'its process (ptrace)' } as const;

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = raw.filter(({ pause }) => pause !== 'threads').map((sample) => STEPS.parse(sample));
  const threads = raw
    .filter(({ pause }) => pause === 'threads')
    .map((sample) => THREADS.parse(sample).pauseUs);
  const of = (pause: Table1Sample['pause']) => samples.filter((sample) => sample.pause === pause);
  const middle = (list: readonly Table1Sample[], figure: (sample: Table1Sample) => number) =>
    estimate(list.map(figure));
  const on = onWhat(setup);
  const ways = (['QMP', 'process'] as const).map((pause) => {
    const list = of(pause);
    const rest = ({ translateUs, wordUs }: Table1Sample) => translateUs + wordUs;
    const paperRest = (s: Table1Sample) => s.paperTranslateUs + s.paperMapUs + s.paperWordUs;
    return {
      pause,
      pauseUs: middle(list, (s) => s.pauseUs),
      translate: middle(list, (s) => s.translateUs),
      word: middle(list, (s) => s.wordUs),
      paperTranslate: middle(list, (s) => s.paperTranslateUs),
      paperMap: middle(list, (s) => s.paperMapUs),
      paperWord: middle(list, (s) => s.paperWordUs),
      /** All but the pause, by the pause. */
      share: middle(list, (s) => rest(s) / s.pauseUs),
      /** All but the pause, by what it costs the paper's way in the same pause. */
      ratio: middle(list, (s) => rest(s) / paperRest(s)),
    };
  });
  const bare = estimate(threads);
  const [first] = ways as [(typeof ways)[number], (typeof ways)[number]];
  const verdicts = [
    ...ways.map(({ pause, share }) =>
      atMost(
        `Nothing but the pause dominates, paused by ${PAUSES[pause]}: all the rest by the pause`,
        1,
        share,
        '',
        `${on} In the paper all the rest was ${((PAPER.translate + PAPER.map) / PAPER.pause).toFixed(2)} times the pause. A pause costs more here than there, so the claim against the paper’s way says more.`,
      ),
    ),
    ...ways.map(({ pause, ratio }) =>
      atMost(
        `Translation, mapping and the word cost less than the paper’s way in the same pause (by ${PAUSES[pause]}): ours by theirs`,
        1,
        ratio,
        '',
        `${on} Both in each pause, in turn; theirs maps and unmaps each page table and the page, by mmap here.`,
      ),
    ),
  ];
  const cells = (label: string, paper: number, ...rest: string[]) => [label, paper.toFixed(2), ...rest];
  const table = markdownTable(
    [
      'one word of a paused domain, µs',
      'paper (Xen)',
      'the paper’s way here',
      'ours, by monitor',
      'ours, by process',
    ],
    [
      cells('pause and resume', PAPER.pause, 'as ours', ...ways.map(({ pauseUs }) => shown(pauseUs))),
      cells(
        'translate the address',
        PAPER.translate,
        shown(first.paperTranslate),
        ...ways.map((w) => shown(w.translate)),
      ),
      cells('map and unmap', PAPER.map, shown(first.paperMap), 'none', 'none'),
      cells('read the word', PAPER.word, shown(first.paperWord), ...ways.map((w) => shown(w.word))),
    ],
  );
  const text = `The paper: ${PAPER.pause} µs to pause and resume, ${PAPER.translate} µs to translate, ${PAPER.map} µs to map and unmap, ${PAPER.word.toFixed(2)} µs for the word: its
cost was translation. Ours, medians with the interval of 95 % (${of('QMP').length} pauses each way):

${table}

Stopping and continuing the vCPU’s thread by ptrace alone takes ${shown(bare, 'µs')}; the rest of a pause by process is
the search for the end of an instruction that QEMU’s translator has under way, which KVM does not need.

*What differs:* the paper measured hypercalls of Xen on a real machine; here QEMU translates, and the host’s two CPUs have to run
the vCPU and the reader. *Better:* a page table that was read once is compared at the next pause, all of them in one read, instead of walked
again, and no page is mapped for a word. *Worse:* a pause costs ${(first.pauseUs.value / PAPER.pause).toFixed(0)} times what the paper’s hypercalls cost, and reading a word is a system call
(\`pread\` of the machine’s memory) where theirs, once mapped, was a load. The next chapter has Table 1 on a Xen, beside a C program of the paper’s way.`;
  const points = [
    ...Object.entries({ pause: PAPER.pause, translate: PAPER.translate, map: PAPER.map }).map(
      ([step, us]) => ({
        who: 'paper (Xen)',
        step: STEP_NAMES[step as keyof typeof STEP_NAMES],
        us,
      }),
    ),
    point('paper’s way here', 'translate', first.paperTranslate),
    point('paper’s way here', 'map', first.paperMap),
    point('paper’s way here', 'word', first.paperWord),
    ...ways.flatMap(({ pause, pauseUs, translate, word }) => {
      const who = pause === 'QMP' ? 'ours, by monitor' : 'ours, by process';
      return [point(who, 'pause', pauseUs), point(who, 'translate', translate), point(who, 'word', word)];
    }),
  ];
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'table1',
        alt: 'What one word of a paused domain costs, step by step: the paper, the paper’s way here, and ours',
        spec: picture(points, 'One word of a paused domain, step by step', WHO),
      },
    ],
  };
}

const WHO = ['paper (Xen)', 'paper’s way here', 'ours, by monitor', 'ours, by process'];
