import type { DaemonMark } from './marked-daemon.ts';
import type { TimeSpan } from './runs.ts';

/** Parts of the time until a process is off its CPU, in their order; the last one is the whole. */
export const PARTS = [
  'until seen once',
  'until seen twice',
  'until the tick begins',
  'look at all, decision',
  'rehearsal',
  'pause',
  'look, plan, journal',
  'proof',
  'write',
  'second proof',
  'resume',
  'off, from when the pause is asked for',
  'all',
  'pauses',
] as const;

/** How long each part took, in ms. */
export type HoldParts = Readonly<Record<(typeof PARTS)[number], number>>;

/**
 * Takes apart what a daemon did between somebody's beginning to run and another one's end.
 * @param gapMs as of `effects`
 * @returns only those that a tick which was brought forward has held, at its first pause
 */
export function holdParts(
  causes: readonly TimeSpan[],
  effects: readonly TimeSpan[],
  marks: readonly DaemonMark[],
  gapMs: number,
): HoldParts[] {
  return causes.slice(0, -1).flatMap(({ fromMs, toMs }) => {
    const went = effects.some((run) => run.fromMs <= fromMs && run.toMs >= fromMs - gapMs);
    const offMs = effects.findLast((run) => run.fromMs < toMs)?.toMs;
    if (!went || offMs === undefined || offMs > toMs - gapMs) return [];
    const after = marks.filter(({ ms }) => ms >= fromMs && ms < toMs).sort((a, b) => a.ms - b.ms);
    if (after.find(({ what }) => what === 'decided')?.early !== true) return [];
    const next = (what: DaemonMark['what'], ms: number) =>
      after.find((mark) => mark.what === what && mark.ms >= ms)?.ms ?? Number.NaN;
    const tick = next('ticks', fromMs);
    const sees = after.filter(({ what, ms }) => what === 'sees' && ms < tick).map(({ ms }) => ms);
    const holds = next('holds', tick);
    const pauses = next('pauses', holds);
    const paused = next('paused', pauses);
    const proves = next('proves', paused);
    const proved = next('proved', proves);
    const written = next('written', proved);
    const resumes = next('resumes', written);
    const resumed = next('resumed', resumes);
    if (Number.isNaN(resumed) || sees.length === 0) return [];
    const done = next('done', holds);
    const count = after.filter(({ what, ms }) => what === 'pauses' && !(ms > done)).length;
    return {
      'until seen once': sees[0]! - fromMs,
      'until seen twice': sees.at(-1)! - sees[0]!,
      'until the tick begins': tick - sees.at(-1)!,
      'look at all, decision': holds - tick,
      rehearsal: pauses - holds,
      pause: paused - pauses,
      'look, plan, journal': proves - paused,
      proof: proved - proves,
      write: written - proved,
      'second proof': resumes - written!,
      resume: resumed - resumes,
      'off, from when the pause is asked for': offMs - pauses,
      all: offMs - fromMs,
      pauses: count,
    };
  });
}
