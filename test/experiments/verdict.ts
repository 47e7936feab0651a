import type { Estimate } from '../bench/pairs.ts';
import type { Setup } from './experiment.ts';

/** A claim of the paper's, or one that goes beyond it, and whether the samples bear it out. */
export interface ClaimVerdict {
  readonly claim: string;
  readonly outcome: 'met' | 'missed' | 'cannot be told here';
  readonly found: string;
  /** What has to be known to read it right: the accelerator first of all. */
  readonly because: string;
}

/** An estimate and its interval, as people read it. */
export function shown({ value, from, to }: Estimate, unit = ''): string {
  const figure = (number: number) => {
    const digits = Math.abs(number) >= 100 ? 0 : Math.abs(number) >= 10 ? 1 : 2;
    return number.toFixed(digits);
  };
  return `${figure(value)}${unit && ` ${unit}`} (${figure(from)} to ${figure(to)})`;
}

/** Whether an interval lies on one side of a limit, so that more samples would change nothing. */
export function isDecided({ from, to }: Estimate, limit: number): boolean {
  return to <= limit || from > limit;
}

/** Judges that a figure is at most `limit`: only an interval that lies on one side of the limit decides. */
export function atMost(
  claim: string,
  limit: number,
  found: Estimate,
  unit: string,
  because: string,
): ClaimVerdict {
  const outcome = !isDecided(found, limit) ? 'cannot be told here' : found.to <= limit ? 'met' : 'missed';
  const why = outcome === 'cannot be told here' ? `The interval has the limit inside. ${because}` : because;
  return { claim, outcome, found: shown(found, unit), because: why };
}

/** Judges that a figure is at least `limit`, likewise. */
export function atLeast(
  claim: string,
  limit: number,
  found: Estimate,
  unit: string,
  because: string,
): ClaimVerdict {
  const isMet = found.from >= limit;
  const outcome = isMet ? 'met' : found.to < limit ? 'missed' : 'cannot be told here';
  const why = outcome === 'cannot be told here' ? `The interval has the limit inside. ${because}` : because;
  return { claim, outcome, found: shown(found, unit), because: why };
}

/** Judges a number of things that were counted one by one, so that there is no interval. */
export function countAtMost(
  claim: string,
  limit: number,
  count: number,
  of: string,
  because: string,
): ClaimVerdict {
  return { claim, outcome: count <= limit ? 'met' : 'missed', found: `${count} ${of}`, because };
}

/** What every verdict here has to say first. */
export function onWhat({
  accelerator,
  xen,
  machine,
}: Pick<Setup, 'accelerator' | 'xen' | 'machine'>): string {
  if (xen !== undefined)
    return `Xen in QEMU, translated (${accelerator.toUpperCase()}): one emulated CPU for all.`;
  const how = accelerator === 'tcg' ? 'Translated by QEMU (TCG): no KVM here' : 'KVM';
  return `${how}; ${machine.cpus} CPUs of the host for all.`;
}
