/** Figure 8 (section 5.4): pi1 of U1 runs only while pi2 and pi3 of U1 and pi4 of U2 rest. */
import { z } from 'zod';
import { percentile } from '../../bench/harness.ts';
import type { Findings, RawSample, Setup } from '../experiment.ts';
import { markdownTable } from '../markdown.ts';
import { COLOURS, type PictureSpec } from '../picture.ts';
import { type ClaimVerdict, countAtMost, onWhat } from '../verdict.ts';
import { bridged, changesOf, overlap, type Stretch, total, union } from './spans.ts';

const SAMPLE = z.strictObject({
  intervalMs: z.number(),
  /** Interval of the sentinel; 0 for none. */
  sentinelMs: z.number(),
  process: z.string(),
  did: z.enum(['ran', 'wanted']),
  from: z.number(),
  to: z.number(),
});
export type Fig8Sample = z.infer<typeof SAMPLE>;

export const LOWEST = 'pi1';
/** What a hold is to take with the sentinel, from when somebody begins to run, in 99 of 100 cases. */
const PROMPT_MS = 20;
/** How much of a run is drawn, in ms. */
export const DRAWN_MS = 30_000;

export interface JudgedRun {
  readonly intervalMs: number;
  readonly sentinelMs: number;
  readonly seconds: number;
  readonly changes: number;
  /** Of those changes that found pi1 on its CPU and did not take it away at once, as one in its own domain does. */
  readonly delays: readonly number[];
  readonly wrongMs: number;
  readonly mistakes: number;
  /** Times that pi1 began to run although another one had been wanting to for a whole interval. */
  readonly early: number;
  readonly lowestMs: number;
  readonly restMs: number;
}

/** @param gapMs a gap in a run of pi1's that is no longer than this ends no run: whatever has the CPU in it took it for its turn */
export function judgeRun(
  intervalMs: number,
  samples: readonly Pick<Fig8Sample, 'process' | 'did' | 'from' | 'to'>[],
  sentinelMs = 0,
  gapMs = 0,
): JudgedRun {
  const did = (what: Fig8Sample['did'], own: boolean): Stretch[] =>
    samples.filter((one) => one.did === what && (one.process === LOWEST) === own);
  const lowest = did('ran', true);
  const others = union(did('wanted', false));
  // A period that had begun before the first look has no beginning that was seen.
  const changes = changesOf(lowest, others).filter(({ atMs }) => atMs > 0);
  const endMs = Math.max(...samples.map(({ to }) => to));
  const delays = changes.map(({ delayMs }) => delayMs).filter((ms) => ms > 0);
  const wrong = overlap(lowest, others);
  return {
    intervalMs,
    sentinelMs,
    seconds: endMs / 1000,
    changes: changes.length,
    delays,
    wrongMs: total(wrong),
    mistakes: delays.filter((ms) => ms > intervalMs).length,
    early: bridged(lowest, gapMs).filter(({ from }) =>
      others.some((other) => other.from + intervalMs < from && from < other.to),
    ).length,
    lowestMs: total(lowest) - total(wrong),
    restMs: endMs - total(others),
  };
}

/** What is claimed of runs, and the figures of each. */
export interface JudgedRuns {
  readonly verdicts: readonly ClaimVerdict[];
  readonly table: string;
  /** As the daemon is by default, where that was measured. */
  readonly drawn: PictureSpec;
}

/**
 * @param on what they were taken on
 * @param where the title of the picture says it too
 * @param gapMs as {@link judgeRun}
 */
export function judgeRuns(raw: readonly RawSample[], on: string, where = '', gapMs = 0): JudgedRuns {
  const samples = raw.map((sample) => SAMPLE.parse(sample));
  const modes = new Map(samples.map((one) => [modeOf(one), one]));
  const runs = [...modes].map(([mode, { intervalMs, sentinelMs }]) =>
    judgeRun(
      intervalMs,
      samples.filter((one) => modeOf(one) === mode),
      sentinelMs,
      gapMs,
    ),
  );
  const verdicts = runs.flatMap(({ changes, delays, mistakes, early, ...mode }): ClaimVerdict[] => [
    ...(mode.sentinelMs === 0
      ? []
      : [
          countAtMost(
            `${modeOf(mode)}: pi1 is off its CPU within ${PROMPT_MS} ms (a delay of the sentinel and a hold)`,
            0,
            delays.filter((ms) => ms > PROMPT_MS).length,
            `of ${delays.length} that found pi1 running were not, of ${changes} changes`,
            on,
          ),
        ]),
    countAtMost(
      `${modeOf(mode)}: no mistake longer than an interval (from when another one wants a CPU to when pi1 is off its own)`,
      0,
      mistakes,
      `of ${delays.length} that found pi1 running, of ${changes} changes`,
      on,
    ),
    countAtMost(
      `${modeOf(mode)}: pi1 never begins to run when another one has wanted to for an interval`,
      0,
      early,
      'times',
      on,
    ),
  ]);
  const ms = (value: number) => value.toFixed(0);
  const at = (delays: readonly number[], part: number) =>
    delays.length === 0 ? '–' : `${ms(percentile(delays, part))} ms`;
  const table = markdownTable(
    [
      ...['looks', 'seconds', 'changes', 'found pi1 running', 'off after, median', '90 %', 'longest'],
      ...['longer than an interval', 'pi1 beside others', 'of the others’ rest pi1 had'],
    ],
    runs.map((run) => [
      modeOf(run),
      ms(run.seconds),
      String(run.changes),
      String(run.delays.length),
      ...[0.5, 0.9, 1].map((part) => at(run.delays, part)),
      String(run.mistakes),
      `${((100 * run.wrongMs) / (run.seconds * 1000)).toFixed(2)} %`,
      `${((100 * run.lowestMs) / run.restMs).toFixed(0)} %`,
    ]),
  );
  const drawn = runs.find(({ sentinelMs }) => sentinelMs > 0) ?? runs.at(-1)!;
  const shown = samples.filter((one) => modeOf(one) === modeOf(drawn) && one.from < DRAWN_MS);
  return { verdicts, table, drawn: timeline(shown, modeOf(drawn), where) };
}

export function judge(setup: Setup, raw: readonly RawSample[]): Findings {
  const { verdicts, table, drawn } = judgeRuns(raw, onWhat(setup));
  const text = `The paper: pi1 of U1 has the lowest priority of all, pi2 and pi3 are in U1 with it, pi4 is in U2; pi1 is to run only while the three rest. Its graph has one
mistake that can be seen, at 20 s. Ours, by \`idle-only\`:

${table}

A change is a moment at which one of the three begins to want a CPU, all having rested. It finds pi1 running if pi1 still is for a
moment: one in U1 itself takes the CPU from it at once. A mistake is a change after which pi1 is still on its CPU when an interval is over.

*What differs:* guests and daemon share the host’s CPUs with each other and with the program that watches. Who runs is read from the guests’ own run
queues in the file of their memory, over and over, by a reader that has nothing in common with domsched. *Better:* the
mistakes are counted, not looked for in a graph. Between two looks a sentinel reads who is on the CPUs and brings the
next look forward (the daemon has one unless it is told otherwise). *Worse:* without the sentinel each change costs up to an interval, as in the paper, and the hold itself (how long that takes is under
*how soon what runs is off its CPU*); a busy host lets the daemon wait, and a look that was brought forward in vain makes the sentinel leave that domain out
for a while, so that some changes still wait for the next look.

*Tried against what is missed:* the sentinel, shorter intervals (a row each), and a nice value before the host’s other work.`;
  return {
    verdicts,
    text,
    pictures: [
      {
        name: 'fig8',
        alt: `Who ran when over ${DRAWN_MS / 1000} s: pi1 of U1 runs while pi2, pi3 and pi4 rest`,
        spec: drawn,
      },
    ],
  };
}

/** How the daemon looked, as a heading. */
function modeOf({ intervalMs, sentinelMs }: Pick<Fig8Sample, 'intervalMs' | 'sentinelMs'>): string {
  const every = `Every ${intervalMs} ms`;
  return sentinelMs === 0 ? every : `${every}, sentinel every ${sentinelMs} ms`;
}

function timeline(samples: readonly Fig8Sample[], mode: string, where: string): PictureSpec {
  const names = [...new Set(samples.map(({ process }) => process))].sort();
  const wanted = samples.filter(({ did, process }) => did === 'wanted' && process !== LOWEST);
  const lowest = samples.filter(({ did, process }) => did === 'ran' && process === LOWEST);
  const wrong = overlap(lowest, union(wanted)).map((stretch) => ({ ...stretch, process: LOWEST }));
  const bar = (kind: string, list: readonly (Stretch & { process: string })[]) =>
    list.map(({ process, from, to }) => ({
      process,
      kind,
      from: from / 1000,
      to: Math.min(to, DRAWN_MS) / 1000,
    }));
  const kinds = ['pi1 ran, others at rest', 'another one ran or wanted to', 'pi1 ran beside others'];
  return {
    title: {
      text: `pi1 runs only while pi2, pi3 and pi4 rest${where}`,
      subtitle: `as Figure 8 of the paper; U1: pi1, pi2, pi3; U2: pi4; the daemon looks ${mode.replace('Every', 'every')}`,
    },
    width: 720,
    height: 150,
    data: { values: [...bar(kinds[1]!, wanted), ...bar(kinds[0]!, lowest), ...bar(kinds[2]!, wrong)] },
    mark: { type: 'bar', height: 22, opacity: 1 },
    encoding: {
      y: { field: 'process', type: 'nominal', sort: names, title: null },
      x: { field: 'from', type: 'quantitative', title: 'seconds', scale: { domain: [0, DRAWN_MS / 1000] } },
      x2: { field: 'to' },
      color: {
        field: 'kind',
        type: 'nominal',
        title: null,
        sort: kinds,
        scale: { domain: kinds, range: [COLOURS[0], '#b9c2cd', '#d1242f'] },
      },
    },
  };
}
