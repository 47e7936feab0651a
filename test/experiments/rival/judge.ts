/** Section 5.6: agents in the guests and a coordinator, beside domsched, with the policy of Figure 8. */
import { z } from 'zod';
import { median, percentile } from '../../bench/harness.ts';
import { estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { type JudgedRun, judgeRun, LOWEST } from '../fig8/judge.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { atMost, onWhat } from '../verdict.ts';

const CONTENDER = { way: z.enum(['domsched', 'rival']), intervalMs: z.number() };
const COUNTS = z.strictObject({
  looks: z.number(),
  ignored: z.number(),
  kernel: z.number(),
  ignoredAlone: z.number(),
  refused: z.number(),
});
/** When pi1 ran, or another one wanted to, in ms from the begin of a window. */
const STRETCHES = z.strictObject({
  ...CONTENDER,
  round: z.number(),
  process: z.string(),
  stretches: z.array(z.tuple([z.number(), z.number()])),
});
/** One for each window. */
const WINDOW = z.strictObject({
  ...CONTENDER,
  round: z.number(),
  seconds: z.number(),
  /** CPU time of daemon or coordinator, and of all agents in their guests. */
  hostMs: z.number(),
  guestMs: z.number(),
  counts: COUNTS.optional(),
});
type RivalWindow = z.infer<typeof WINDOW>;
export type Contender = Pick<RivalWindow, 'way' | 'intervalMs'>;
export type RivalCost = Pick<RivalWindow, 'hostMs' | 'guestMs' | 'counts'>;

/** Of the daemon, and of a rival that looks as often. */
export const DAEMON_MS = 500;

/** All windows of one way to schedule. */
interface JudgedContender extends Contender {
  readonly name: string;
  readonly windows: readonly (RivalWindow & { readonly run: JudgedRun })[];
}

function contenders(raw: readonly RawSample[]): JudgedContender[] {
  const windows = raw.filter((sample) => 'seconds' in sample).map((sample) => WINDOW.parse(sample));
  const stretches = Map.groupBy(
    raw.filter((sample) => 'stretches' in sample).map((sample) => STRETCHES.parse(sample)),
    ({ way, intervalMs, round }) => `${way} ${intervalMs} ${round}`,
  );
  const samplesOf = (window: RivalWindow) =>
    (stretches.get(`${window.way} ${window.intervalMs} ${window.round}`) ?? []).flatMap((seen) =>
      seen.stretches.map(([from, to]) => ({
        process: seen.process,
        did: seen.process === LOWEST ? ('ran' as const) : ('wanted' as const),
        from,
        to,
      })),
    );
  const ways = Map.groupBy(windows, ({ way, intervalMs }) => `${way} ${intervalMs}`);
  return [...ways.values()]
    .map((list) => {
      const { way, intervalMs } = list[0]!;
      return {
        way,
        intervalMs,
        name: way === 'domsched' ? 'domsched' : `agents, every ${intervalMs} ms`,
        windows: list
          .toSorted((a, b) => a.round - b.round)
          .map((window) => ({
            ...window,
            run: judgeRun(intervalMs, samplesOf(window)),
          })),
      };
    })
    .toSorted((a, b) => a.way.localeCompare(b.way) || b.intervalMs - a.intervalMs);
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
const delaysOf = ({ windows }: JudgedContender) => windows.flatMap(({ run }) => run.delays);
/** Percent of a window in which pi1 ran beside others. */
const wrong = ({ run, seconds }: JudgedContender['windows'][number]) => run.wrongMs / (10 * seconds);
/** CPU time of everybody's, ms in a second. */
const cost = ({ hostMs, guestMs, seconds }: RivalWindow) => (hostMs + guestMs) / seconds;

/** Of each round, both of it: what one's window gives against the other's. */
export function paired<T extends { readonly round: number }>(
  ours: readonly T[],
  theirs: readonly T[],
  compare: (our: T, their: T) => number,
): number[] {
  return ours.flatMap((our) => {
    const their = theirs.find(({ round }) => round === our.round);
    return their === undefined ? [] : [compare(our, their)];
  });
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const all = contenders(raw);
  const ours = all.find(({ way }) => way === 'domsched')!;
  const rivals = all.filter(({ way }) => way === 'rival');
  const alike = rivals.find(({ intervalMs }) => intervalMs === DAEMON_MS)!;
  const quickest = rivals.at(-1)!;
  const on = onWhat(setup);
  const verdicts = [
    atMost(
      `pi1 runs no longer beside others than with agents that look as often (every ${DAEMON_MS} ms): percent of the time, ours less theirs`,
      0,
      estimate(paired(ours.windows, alike.windows, (our, their) => wrong(our) - wrong(their))),
      '%',
      on,
    ),
    atMost(
      `pi1 runs no longer beside others than with agents that look every ${quickest.intervalMs} ms: percent of the time, ours less theirs`,
      0,
      estimate(paired(ours.windows, quickest.windows, (our, their) => wrong(our) - wrong(their))),
      '%',
      on,
    ),
    atMost(
      `domsched takes no more CPU time, all of it the host’s, than agents every ${quickest.intervalMs} ms and their coordinator: ours by theirs`,
      1,
      estimate(paired(ours.windows, quickest.windows, (our, their) => cost(our) / cost(their))),
      'times',
      on,
    ),
  ];
  return {
    verdicts,
    text: textOf(all),
    pictures: [
      {
        name: 'rival',
        alt: 'After how long pi1 is off its CPU, and what CPU time that costs in guests and host: domsched, and agents in the guests',
        spec: picture(all),
      },
    ],
  };
}

function textOf(all: readonly JudgedContender[]): string {
  const ms = (delays: readonly number[], part: number) =>
    delays.length === 0 ? '–' : percentile(delays, part).toFixed(0);
  const errors = markdownTable(
    [
      ...['', 'seconds', 'changes', 'found pi1 running', 'off after, ms, median', '90 %', 'longest'],
      ...['longer than an interval', 'pi1 beside others', 'of the others’ rest pi1 had'],
    ],
    all.map((one) => {
      const runs = one.windows.map(({ run }) => run);
      const delays = delaysOf(one);
      return [
        one.name,
        sum(one.windows.map(({ seconds }) => seconds)).toFixed(0),
        String(sum(runs.map(({ changes }) => changes))),
        String(delays.length),
        ...[0.5, 0.9, 1].map((part) => ms(delays, part)),
        String(sum(runs.map(({ mistakes }) => mistakes))),
        `${(sum(one.windows.map(wrong)) / one.windows.length).toFixed(2)} %`,
        `${((100 * sum(runs.map(({ lowestMs }) => lowestMs))) / sum(runs.map(({ restMs }) => restMs))).toFixed(0)} %`,
      ];
    }),
  );
  const part = (
    counts: readonly (RivalWindow['counts'] & {})[],
    of: 'ignored' | 'kernel' | 'ignoredAlone',
  ) =>
    counts.length === 0
      ? 'none'
      : `${((100 * sum(counts.map((count) => count[of]))) / sum(counts.map(({ looks }) => looks))).toFixed(0)} %`;
  const costs = markdownTable(
    [
      ...['', 'CPU of the guests, ms in a second', 'CPU of the host, ms in a second'],
      ...[
        'looks with the agent itself among the runnable',
        'of these, with nobody else',
        'looks with a kernel thread',
      ],
    ],
    all.map(({ name, windows }) => {
      const counts = windows.flatMap((window) => window.counts ?? []);
      return [
        name,
        median(windows.map(({ guestMs, seconds }) => guestMs / seconds)).toFixed(1),
        median(windows.map(({ hostMs, seconds }) => hostMs / seconds)).toFixed(1),
        part(counts, 'ignored'),
        part(counts, 'ignoredAlone'),
        part(counts, 'kernel'),
      ];
    }),
  );
  return `The paper weighs its scheduler against one inside the guests, which finds itself among the processes that it is to schedule. Here an agent in each
guest reads \`/proc\` every so many ms and tells a coordinator on the host over TCP who is runnable; the coordinator has the policy of Figure 8 and
sends SIGSTOP and SIGCONT. domsched has it as \`idle-only\`, looks every ${DAEMON_MS} ms, and has its sentinel. Guests and work are the same, and ways take turns:

${errors}

${costs}

An agent that reads \`/proc\` runs, so it sees itself in every look, and pi1 would never run were the coordinator not told to ignore it; nor may it count the kernel’s
threads that its own packets wake. CPU time of guests is what their kernels say of the agents alone (\`schedstat\`): packets, timers and the work that signals make are not in it, and time that the host
took from a vCPU in the middle of it is. Of domsched nothing runs in a guest; what its pauses take from one is Figure 7’s.

*What differs:* the paper’s rival had system calls of its own; this one takes what every kernel has. Its agents go before the other work of their guests (nice −10),
and the network does not leave the host. *What the rival does better:* it knows exact states without a layout, an address or a pause; a signal stops pi1 at once and on any kernel, and each
guest’s own kernel checks that it may; it costs the host nearly nothing; and by looking more often it gets as quick as one likes. *Worse:* each look costs CPU time of the guest that it is
to schedule, and grows with its processes; it is itself work that the guest’s scheduler may let wait; it has to be installed, trusted and kept running in every guest, with root’s power
there, and be reachable over a network; a parent sees its child stopped (SIGCHLD, \`waitpid\`), and whoever is traced or stopped by a shell is mixed up with it; and a guest without an agent is not scheduled at all.`;
}

function picture(all: readonly JudgedContender[]): PictureSpec {
  const y = { field: 'name', type: 'nominal', title: null, sort: all.map(({ name }) => name) } as const;
  const names = { ...y, sort: [...y.sort], axis: { labelLimit: 240 } };
  const kinds = ['in the guests', 'on the host'];
  return {
    title: {
      text: 'domsched, and a scheduler inside the guests',
      subtitle:
        'as section 5.6 of the paper; the policy of its Figure 8; each line is a change that found pi1 running, black: the median',
    },
    hconcat: [
      {
        width: 330,
        height: { step: 34 },
        data: { values: all.flatMap((one) => delaysOf(one).map((delay) => ({ name: one.name, delay }))) },
        layer: [
          {
            mark: { type: 'tick', thickness: 2, opacity: 0.6 },
            encoding: {
              y: names,
              x: {
                field: 'delay',
                type: 'quantitative',
                title: 'pi1 is off its CPU after, ms',
                scale: { type: 'log' },
              },
              color: { value: COLOURS[0] },
            },
          },
          {
            mark: { type: 'tick', thickness: 4, color: '#000000' },
            encoding: { y: names, x: { field: 'delay', type: 'quantitative', aggregate: 'median' } },
          },
        ],
      },
      {
        width: 230,
        height: { step: 34 },
        data: {
          values: all.flatMap(({ name, windows }) =>
            (['guestMs', 'hostMs'] as const).map((of, i) => ({
              name,
              kind: kinds[i],
              ms: median(windows.map((window) => window[of] / window.seconds)),
            })),
          ),
        },
        mark: { type: 'bar', height: 18 },
        encoding: {
          y: { ...names, axis: null },
          x: { field: 'ms', type: 'quantitative', title: 'CPU time, ms in a second', stack: 'zero' },
          color: {
            field: 'kind',
            type: 'nominal',
            title: null,
            sort: kinds,
            scale: { domain: kinds, range: [COLOURS[1], COLOURS[2]] },
          },
        },
      },
    ],
  };
}
