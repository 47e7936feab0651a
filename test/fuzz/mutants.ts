import process from 'node:process';

/** How a run over mutated inputs ended; an exception that is none of ours ends it with {@link FuzzFailure}. */
export interface FuzzReport {
  readonly runs: number;
  /** Inputs by the code they were refused with; `accepted` for those that could be read. */
  readonly outcomes: Record<string, number>;
  /** Most CPU time of the process for one input, so that a busy host makes none slow. */
  slowestMs: number;
  /** Most resident memory seen after an input, in bytes. */
  peakRss: number;
}

export interface FuzzOptions {
  readonly runs: number;
  readonly seed: number;
  /** Called now and then, for long runs. */
  readonly progress?: (done: number) => void;
}

/** A mutated input that broke the rule "read or refused with an error of ours". */
export class FuzzFailure extends Error {
  readonly input: unknown;

  constructor(run: number, seed: number, input: unknown, cause: unknown) {
    super(`run ${run} of seed ${seed}: ${String(cause)}`, { cause });
    this.input = input;
  }
}

export type Random = (below: number) => number;

/** 32-bit numbers, the same for the same seed on every machine (xorshift32, Marsaglia 2003). */
export function words(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Whole numbers below a bound, by a seed. */
export function generator(seed: number): Random {
  const next = words(seed);
  return (below) => next() % below;
}

/**
 * Reads one mutated input after the other.
 * @param make makes the next input
 * @param read gives the code with which it was refused, undefined if it was read; throws what is none of ours
 */
export async function fuzzMutants<Input>(
  { runs, seed, progress }: FuzzOptions,
  make: (random: Random) => Input,
  read: (input: Input, random: Random) => Promise<string | undefined>,
): Promise<FuzzReport> {
  const random = generator(seed);
  const report: FuzzReport = { runs, outcomes: {}, slowestMs: 0, peakRss: 0 };
  for (let run = 0; run < runs; run++) {
    const input = make(random);
    const before = process.cpuUsage();
    const code = await read(input, random).catch((error: unknown) => {
      throw new FuzzFailure(run, seed, input, error);
    });
    const outcome = code ?? 'accepted';
    report.outcomes[outcome] = (report.outcomes[outcome] ?? 0) + 1;
    const { user, system } = process.cpuUsage(before);
    report.slowestMs = Math.max(report.slowestMs, (user + system) / 1000);
    if (run % 256 === 0) {
      report.peakRss = Math.max(report.peakRss, process.memoryUsage.rss());
      progress?.(run);
    }
  }
  return report;
}
