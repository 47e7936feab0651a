/** Beyond the paper: a service with a target and a batch job in two guests, under changing load. */
import { z } from 'zod';
import { median } from '../../bench/harness.ts';
import { estimate } from '../../bench/pairs.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { atLeast, countAtMost, onWhat } from '../verdict.ts';

const MODES = ['none', 'idle-only', 'protect', 'alone'] as const;
/** A window of about one second. */
const SAMPLE = z.strictObject({
  round: z.number(),
  mode: z.enum(MODES),
  /** What the service needed, as part of a CPU, and the number of the window in its mode's turn. */
  level: z.number(),
  window: z.number(),
  ms: z.number(),
  /** What the vCPU of the service's guest ran and waited, and what the batch job's ran, as the host's kernel counts it. */
  ranMs: z.number(),
  waitedMs: z.number(),
  batchMs: z.number(),
});
export type ProtectSample = z.infer<typeof SAMPLE>;
type Mode = ProtectSample['mode'];

/** The most that the service is to wait in a second. */
export const TARGET_MS = 100;
const KEPT_PART = 0.95;
const BATCH_PART = 0.8;

const NAMES: Readonly<Record<Mode, string>> = {
  none: 'no policy',
  'idle-only': '`idle-only`',
  protect: '`protect`',
  alone: 'the service alone',
};

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
/** Ms in each second of a window. */
const perSecond = (ms: number, window: ProtectSample) => (1000 * ms) / window.ms;

/** Whether the service waited no longer than it may. */
function isKept(window: ProtectSample): boolean {
  return perSecond(window.waitedMs, window) <= TARGET_MS;
}

/**
 * What a scheduler that knows what is to come could leave the batch job of a window, in ms of a second, by letting it run
 * for just the part of it that the target allows: of what it had in the same window without a policy, and what that cost
 * the service beyond what it waited there alone, for the rest of the host.
 */
export function boundOf(free: ProtectSample, alone: ProtectSample): number {
  const cost = perSecond(free.waitedMs, free);
  const least = Math.min(cost, perSecond(alone.waitedMs, alone));
  const part = cost <= TARGET_MS ? 1 : Math.max(0, (TARGET_MS - least) / (cost - least));
  return part * perSecond(free.batchMs, free);
}

/** The batch job's CPU time in each round, as part of that bound. */
export function batchParts(samples: readonly ProtectSample[], mode: Mode): number[] {
  return [...Map.groupBy(samples, ({ round }) => round).values()].flatMap((round) => {
    const pairs = round
      .filter((window) => window.mode === mode)
      .flatMap((window) => {
        const same = (other: Mode) => round.find((one) => one.mode === other && one.window === window.window);
        const [free, alone] = [same('none'), same('alone')];
        return free === undefined || alone === undefined
          ? []
          : [{ had: perSecond(window.batchMs, window), bound: boundOf(free, alone) }];
      });
    const bound = sum(pairs.map((pair) => pair.bound));
    return bound === 0 ? [] : [sum(pairs.map(({ had }) => had)) / bound];
  });
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const samples = raw.map((sample) => SAMPLE.parse(sample));
  const of = (mode: Mode) => samples.filter((sample) => sample.mode === mode);
  const on = onWhat(setup);
  const ours = of('protect');
  const verdicts = [
    countAtMost(
      `Under \`protect\` the service waits at most ${TARGET_MS} ms in a second in ${100 * KEPT_PART} % of the windows: windows in which it waited longer`,
      Math.floor((1 - KEPT_PART) * ours.length),
      ours.filter((window) => !isKept(window)).length,
      `of ${ours.length}; ${of('alone').filter((window) => !isKept(window)).length} of ${of('alone').length} where the service was alone`,
      on,
    ),
    atLeast(
      `Under \`protect\` the batch job gets at least ${BATCH_PART} of what a scheduler that knows what is to come could leave it`,
      BATCH_PART,
      estimate(batchParts(samples, 'protect')),
      'of it',
      on,
    ),
  ];
  const levels = [...new Set(samples.map(({ level }) => level))].sort((a, b) => a - b);
  const table = markdownTable(
    [
      ...[
        '',
        'windows',
        'target held',
        'waited in a second, ms, median',
        'the job had of a CPU',
        'of the bound',
      ],
      ...levels.map((level) => `service at ${100 * level} %: held, job`),
    ],
    MODES.map((mode) => {
      const windows = of(mode);
      const kept = (some: readonly ProtectSample[]) =>
        `${((100 * some.filter(isKept).length) / some.length).toFixed(0)} %`;
      const had = (some: readonly ProtectSample[]) =>
        `${(sum(some.map((window) => perSecond(window.batchMs, window))) / some.length / 10).toFixed(0)} %`;
      return [
        NAMES[mode],
        String(windows.length),
        kept(windows),
        median(windows.map((window) => perSecond(window.waitedMs, window))).toFixed(1),
        had(windows),
        mode === 'alone' ? '–' : `${(100 * estimate(batchParts(samples, mode)).value).toFixed(0)} %`,
        ...levels.map((level) => {
          const some = windows.filter((window) => window.level === level);
          return `${kept(some)}, ${had(some)}`;
        }),
      ];
    }),
  );
  const text = `A service in one guest needs more and less of a CPU from one few seconds to the next; a batch job in another one wants all of it; both guests have the same CPU of the host. Its
operator wants the service to wait at most ${TARGET_MS} ms in a second. \`idle-only\` cannot say that: it holds the job whenever anybody works.

${table}

What the service waited is what its guest’s vCPU waited for the host’s CPU, as the host’s kernel counts it and in windows of a second that the daemon knows nothing of. The bound
is what a scheduler could leave the job that knows what is to come, and lets it run for just the part of each window that the target allows; it is computed from what
the job had, and what that cost the service beyond what it waits alone, in the same window of the same round. *The service alone* has the job stopped: how far that row is from 100 % is the rest of this host.
The daemon looks every 50 ms, and guarantees no domain anything (\`guarantee = 0\`).

*What differs:* nothing of the paper’s to compare with. *Better:* the target is a number that an operator has. *Worse:* what is learnt of a load’s price is late by a tick, so that the windows
in which load begins are those that are missed.

*Tried against what is missed:* a shorter interval; and the policy has learnt what a hold costs itself, which it had taken for nothing, so that it let the job run again
and again where each time cost more than it may.`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'protect',
        alt: 'What the service waited in each window of a second, and what the batch job had: no policy, idle-only, protect',
        spec: picture(samples.filter(({ mode }) => mode !== 'alone')),
      },
    ],
  };
}

function picture(samples: readonly ProtectSample[]): PictureSpec {
  const names = MODES.slice(0, 3).map((mode) => NAMES[mode].replaceAll('`', ''));
  const values = samples.map((window) => ({
    mode: NAMES[window.mode].replaceAll('`', ''),
    waited: perSecond(window.waitedMs, window),
    had: perSecond(window.batchMs, window) / 10,
  }));
  return {
    title: {
      text: 'What a service waits, and what a batch job in another guest gets',
      subtitle: `a point is a window of a second, under changing load; dashed: the target, ${TARGET_MS} ms`,
    },
    width: 620,
    height: 300,
    data: { values },
    layer: [
      {
        mark: { type: 'point', filled: true, size: 40, opacity: 0.7 },
        encoding: {
          x: { field: 'had', type: 'quantitative', title: 'the batch job had of a CPU, %' },
          y: { field: 'waited', type: 'quantitative', title: 'the service waited, ms' },
          color: {
            field: 'mode',
            type: 'nominal',
            title: null,
            sort: names,
            scale: { domain: names, range: [COLOURS[2], COLOURS[1], COLOURS[0]] },
          },
        },
      },
      {
        mark: { type: 'rule', strokeDash: [4, 4] },
        encoding: { y: { datum: TARGET_MS }, color: { value: COLOURS[4] } },
      },
    ],
  };
}
