import type { History } from './collect.ts';

/** What was traced on one host. */
export interface HostHistory {
  readonly host: string;
  readonly history: History;
}

/**
 * One history of several hosts: a domain is called `host/domain`, as it is where a host says for whom it holds. Moments are
 * put side by side by wall time, which is that of each host's own clock.
 */
export function merge(all: readonly HostHistory[]): History {
  const seen = all.filter(({ history }) => history.ticks > 0);
  const startOf = ({ history }: HostHistory) => Date.parse(history.started);
  const start = seen.reduce((least, one) => Math.min(least, startOf(one)), Infinity);
  const hosts = namesOf(all);
  const moved = all.map((one, i) =>
    move(one.history, hosts[i]!, one.history.ticks > 0 ? startOf(one) - start : 0),
  );
  return {
    hosts,
    started: new Date(Number.isFinite(start) ? start : 0).toISOString(),
    durationMs: moved.reduce((most, { durationMs }) => Math.max(most, durationMs), 0),
    ticks: moved.reduce((sum, { ticks }) => sum + ticks, 0),
    missed: moved.reduce((sum, { missed }) => sum + missed, 0),
    domains: moved.flatMap(({ domains }) => domains),
    rows: moved.flatMap(({ rows }) => rows),
    actions: moved.flatMap(({ actions }) => actions).sort((a, b) => a.at - b.at),
    problems: moved.flatMap(({ problems }) => problems).sort((a, b) => a.from - b.from),
    waits: moved.flatMap(({ waits }) => waits).sort((a, b) => b.waitedMs - a.waitedMs),
  };
}

/** Two traces of one host, or of hosts that share a name, are told apart by a number. */
function namesOf(all: readonly HostHistory[]): string[] {
  const taken = new Set<string>();
  return all.map(({ host }) => {
    let own = host;
    for (let n = 2; taken.has(own); n++) own = `${host}-${n}`;
    taken.add(own);
    return own;
  });
}

function move(history: History, host: string, byMs: number): History {
  const named = (domain: string) => `${host}/${domain}`;
  const later = <T extends { readonly from: number; readonly to: number }>(span: T): T => ({
    ...span,
    from: span.from + byMs,
    to: span.to + byMs,
  });
  return {
    ...history,
    durationMs: history.durationMs + byMs,
    domains: history.domains.map((row) => ({ ...row, id: named(row.id), name: named(row.name) })),
    rows: history.rows.map((row) => ({
      ...row,
      domain: named(row.domain),
      first: row.first + byMs,
      last: row.last + byMs,
      spans: row.spans.map(later),
      held: row.held.map((period) => ({ ...later(period), domain: named(period.domain) })),
    })),
    actions: history.actions.map((action) => ({
      ...action,
      domain: named(action.domain),
      at: action.at + byMs,
    })),
    problems: history.problems.map(({ domain, ...problem }) => ({
      ...later(problem),
      domain: domain === undefined ? host : named(domain),
    })),
    waits: history.waits.map(({ culprit, ...wait }) => ({
      ...wait,
      domain: named(wait.domain),
      culprit: { ...culprit, ...(culprit.domain !== undefined && { domain: named(culprit.domain) }) },
    })),
  };
}
