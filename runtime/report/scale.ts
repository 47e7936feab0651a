import type { Span } from './collect.ts';

/** Shown for a value that is no number, since sums in a trace may overflow. */
const UNKNOWN = '–';

/** Marks of a time axis: at most `most` multiples of a round step. All in ms. */
export function timeMarks(durationMs: number, most: number): number[] {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5];
  steps.push(...[9e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5]);
  let step = steps.find((candidate) => durationMs / candidate < most) ?? 864e5;
  while (durationMs / step >= most) step *= 2;
  return Array.from({ length: Math.floor(durationMs / step) + 1 }, (_, i) => i * step);
}

/** Formats a time since the beginning, as short as the whole duration allows. */
export function timeLabel(ms: number, durationMs: number): string {
  if (!Number.isFinite(ms)) return UNKNOWN;
  if (durationMs < 2_000) return `${round(ms, 0)} ms`;
  const seconds = ms / 1000;
  if (durationMs < 120_000) return `${round(seconds, durationMs < 10_000 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / 3600);
  const rest = `${String(Math.floor(whole / 60) % 60).padStart(hours > 0 ? 2 : 1, '0')}:${String(whole % 60).padStart(2, '0')}`;
  return hours > 0 ? `${hours}:${rest}` : rest;
}

/** Formats a moment to a tenth of a second, for tables. */
export function momentOf(ms: number): string {
  if (!Number.isFinite(ms)) return UNKNOWN;
  const seconds = Math.floor(ms / 1000);
  const rest = `${String(seconds % 60).padStart(2, '0')}.${Math.floor((ms % 1000) / 100)}`;
  const minutes = String(Math.floor(seconds / 60) % 60);
  const hours = Math.floor(seconds / 3600);
  return hours > 0 ? `${hours}:${minutes.padStart(2, '0')}:${rest}` : `${minutes}:${rest}`;
}

/** Formats a duration for people. */
export function lengthOf(ms: number): string {
  if (!Number.isFinite(ms)) return UNKNOWN;
  if (ms < 1) return `${round(ms * 1000, 0)} µs`;
  if (ms < 1000) return `${round(ms, ms < 10 ? 1 : 0)} ms`;
  if (ms < 120_000) return `${round(ms / 1000, ms < 10_000 ? 2 : 1)} s`;
  return timeLabel(ms, ms);
}

/** Formats a part of one CPU as percent. */
export function percent(share: number): string {
  const value = share * 100;
  if (!Number.isFinite(value)) return UNKNOWN;
  if (value > 0 && value < 0.05) return '<0.1 %';
  return `${value >= 10 || value === 0 ? Math.round(value) : value.toFixed(1)} %`;
}

export function round(value: number, digits: number): number {
  const factor = 10 ** digits;
  return Math.round(value * factor) / factor;
}

/** What happened in one column of a picture, as parts of one CPU. */
export interface PictureColumn {
  readonly ran: number;
  readonly waited: number;
}

/**
 * Spreads spans over columns of equal width. CPU time is preserved: columns and spans have equal sums.
 * @param durationMs all columns together
 */
export function columnsOf(spans: readonly Span[], durationMs: number, count: number): PictureColumn[] {
  const ran = new Float64Array(count);
  const waited = new Float64Array(count);
  const width = durationMs / count;
  for (const { from, to, share, wanted } of spans) {
    const first = Math.max(0, Math.floor(from / width));
    const last = Math.min(count - 1, Math.ceil(to / width) - 1);
    for (let i = first; i <= last; i++) {
      const part = (Math.min(to, (i + 1) * width) - Math.max(from, i * width)) / width;
      if (part <= 0) continue;
      ran[i]! += share * part;
      if (wanted) waited[i]! += Math.max(0, 1 - share) * part;
    }
  }
  return Array.from({ length: count }, (_, i) => ({ ran: ran[i]!, waited: waited[i]! }));
}
