import type { Journals } from '../surgeon/journaled-surgeon.ts';

/** Something of ours that is still in a domain. */
export interface Left {
  /** Id of the domain. */
  readonly domain: string;
  /** `unknown` if the domain could not be asked. */
  readonly what: 'held' | 'nice' | 'share' | 'unknown';
  /** For holds and nice values. */
  readonly pid?: number;
  readonly comm?: string;
}

/**
 * What the journals have for some domains, including those that cannot be reached. A record exists from before its edit
 * until that is undone, so a record does not mean a failure.
 */
export async function leftOf(
  { held, changes }: Pick<Journals, 'held' | 'changes'>,
  domains: ReadonlySet<string>,
): Promise<Left[]> {
  const processes = (await held.list()).map(
    ({ domain, pid, comm }) => ({ domain, what: 'held', pid, comm }) as const,
  );
  const others = (await changes.list()).map((record) =>
    record.kind === 'nice'
      ? ({ domain: record.domain, what: 'nice', pid: record.pid, comm: record.comm } as const)
      : ({ domain: record.domain, what: 'share' } as const),
  );
  return [...processes, ...others].filter(({ domain }) => domains.has(domain));
}

/** Removes duplicates: guest and journal name the same holds, and a domain with a named hold need not be `unknown`. */
export function withoutTwins(left: readonly Left[]): Left[] {
  const keyOf = ({ domain, what, pid }: Left) => JSON.stringify([domain, what, pid]);
  const once = [...new Map(left.map((one) => [keyOf(one), one])).values()];
  const named = new Set(once.filter(({ what }) => what !== 'unknown').map(({ domain }) => domain));
  return once.filter(({ domain, what }) => what !== 'unknown' || !named.has(domain));
}
