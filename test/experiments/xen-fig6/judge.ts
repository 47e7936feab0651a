/** Figure 6 (section 5.2) on a Xen, with the client in the web server's own domain. */
import { z } from 'zod';
import { median } from '../../bench/harness.ts';
import { estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { besideAlone, LIMIT_PERCENT, MODES, picture } from '../fig6/judge.ts';
import { markdownTable } from '../markdown.ts';
import { atMost, type ClaimVerdict, onWhat, shown } from '../verdict.ts';

const SAMPLE = z.strictObject({
  round: z.number(),
  mode: z.enum(['alone', 'one domain', 'two domains', 'held']),
  seconds: z.number(),
  /** That were served, each of them whole. */
  pages: z.number(),
});
export type XenFig6Sample = z.infer<typeof SAMPLE>;
/** At the end, with nobody to serve: checks that tripwire finished under the policy, and files of each. */
const FINISH = z.strictObject({ finished: z.number(), scanned: z.number() });

const perSecond = ({ pages, seconds }: XenFig6Sample) => pages / seconds;

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = raw.filter((sample) => 'mode' in sample).map((sample) => SAMPLE.parse(sample));
  const finish = FINISH.parse(raw.find((sample) => 'finished' in sample));
  const on = onWhat(setup);
  const rows = (Object.keys(MODES) as (keyof typeof MODES)[]).map((mode) => ({
    mode,
    pages: median(samples.filter((sample) => sample.mode === mode).map(perSecond)),
    slower: estimate(
      besideAlone(samples, mode, (alone, beside) => 100 * (1 - perSecond(beside) / perSecond(alone))),
    ),
  }));
  const alone = median(samples.filter(({ mode }) => mode === 'alone').map(perSecond));
  const held = rows.find(({ mode }) => mode === 'held')!;
  const verdicts: ClaimVerdict[] = [
    atMost(
      `With tripwire under \`idle-only\`, lighttpd serves at most ${LIMIT_PERCENT} % fewer pages a second than alone, the daemon being on the same CPU`,
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
  const table = markdownTable(
    ['', 'pages per second, median', 'fewer than alone, %'],
    [
      ['lighttpd alone', alone.toFixed(0), '–'],
      ...rows.map(({ mode, pages, slower }) => [MODES[mode], pages.toFixed(0), shown(slower)]),
    ],
  );
  const text = `The same two programs in PV domains of a Xen, the daemon in dom0 (standing still while it is not its turn):

${table}

*What differs:* the client, \`ab\`, is in lighttpd’s own domain and reaches it over loopback: this dom0 has neither a bridge nor the driver of Xen’s network (\`xen-netback\`), since its initramfs has only what
domsched needs. And dom0 has no CPU of its own: what the daemon takes is missing to the domains, and is in this figure. *Worse:* so all of what looking
costs an emulated dom0 is lost to lighttpd: Figure 8 on Xen, below, has how much of the CPU the daemon takes.

*Tried against what is missed:* nothing yet but the default interval (500 ms) and a nice value before the host’s other work; tripwire itself is held, as the row of two domains shows.`;
  const bars = rows.map(({ mode, slower }) => ({ mode: MODES[mode].replaceAll('`', ''), ...slower }));
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'xen-fig6',
        alt: 'How much slower lighttpd is than alone on Xen: with tripwire in its domain, in another, and held',
        spec: picture(
          bars,
          'How much slower lighttpd is than alone, on Xen',
          'percent of the pages a second',
        ),
      },
    ],
  };
}
