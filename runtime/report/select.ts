import type { DomainRow, History, TracedProcess } from './collect.ts';

/** A domain with the processes that are drawn, and the sum of the others. */
export interface DomainGroup {
  readonly domain: DomainRow;
  readonly rows: readonly TracedProcess[];
  readonly others: { readonly count: number; readonly ranMs: number };
}

/** A process that nobody edited needs more than this part of one CPU for a row. */
const LITTLE = 0.005;

/**
 * Chooses the processes with a row of their own: first those that were held or edited, then the busiest.
 * @param most rows in all
 */
export function select(history: History, most: number): DomainGroup[] {
  const touched = new Set(history.actions.map(({ domain, pid }) => `${domain} ${pid}`));
  const isTouched = (row: TracedProcess) => row.held.length > 0 || touched.has(`${row.domain} ${row.pid}`);
  const chosen = new Set(
    history.rows
      .filter((row) => isTouched(row) || row.ranMs > LITTLE * history.durationMs)
      .sort((a, b) => Number(isTouched(b)) - Number(isTouched(a)) || b.ranMs - a.ranMs)
      .slice(0, most),
  );
  const byDomain = Map.groupBy(history.rows, ({ domain }) => domain);
  return history.domains.map((domain) => {
    const all = byDomain.get(domain.id) ?? [];
    const rows = all.filter((row) => chosen.has(row)).sort((a, b) => b.ranMs - a.ranMs || a.pid - b.pid);
    const rest = all.filter((row) => !chosen.has(row));
    const ranMs = rest.reduce((sum, row) => sum + row.ranMs, 0);
    return { domain, rows, others: { count: rest.length, ranMs } };
  });
}
