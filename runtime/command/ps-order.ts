import { DomschedError } from '../error.ts';
import type { Process } from '../guest/process.ts';

/** A list does not need the process's address in the guest. */
type Listable = Omit<Process, 'address'>;

/** A process in a list; `depth` is the number of its ancestors in the list. */
export interface Listed<P> {
  readonly process: P;
  readonly depth: number;
}

type RowOrder = (a: Listable, b: Listable) => number;

const STATE_ORDER: readonly string[] = ['running', 'ready', 'held', 'disk-sleep', 'sleeping'];

const KEYS: Readonly<Record<string, RowOrder>> = {
  pid: (a, b) => a.pid - b.pid,
  cpu: (a, b) => a.cpu - b.cpu,
  // Descending, since people look for processes that use the CPU.
  time: (a, b) => b.utimeNs + b.stimeNs - (a.utimeNs + a.stimeNs),
  nice: (a, b) => a.nice - b.nice,
  state: (a, b) => rank(a.state) - rank(b.state) || a.state.localeCompare(b.state, 'en'),
  comm: (a, b) => (a.comm < b.comm ? -1 : a.comm > b.comm ? 1 : 0),
  start: (a, b) => a.startTimeNs - b.startTimeNs,
};

/**
 * The comparison for `--sort`; ties go by pid.
 * @throws DomschedError `usage`
 */
export function comparison(sort: string): RowOrder {
  const reverse = sort.startsWith('-');
  const key = reverse ? sort.slice(1) : sort;
  if (!Object.hasOwn(KEYS, key)) {
    const text = `--sort knows ${Object.keys(KEYS).join(', ')}, not ${JSON.stringify(key)}`;
    throw new DomschedError('usage', text, { sort: key });
  }
  const compare = KEYS[key]!;
  return (a, b) => (reverse ? compare(b, a) : compare(a, b)) || a.pid - b.pid;
}

/** A plain list. */
export function flat<P extends Listable>(processes: readonly P[], compare: RowOrder): Listed<P>[] {
  return processes.toSorted(compare).map((process) => ({ process, depth: 0 }));
}

/**
 * Children below their parents, siblings in order. Each process appears once, even if the guest claims a cycle of
 * parents.
 */
export function tree<P extends Listable>(processes: readonly P[], compare: RowOrder): Listed<P>[] {
  const byParent = Map.groupBy(processes.toSorted(compare), parentOf);
  const pids = new Set(processes.map(({ pid }) => pid));
  const listed: Listed<P>[] = [];
  const seen = new Set<P>();
  const visit = (roots: readonly P[]) => {
    const stack = roots.map((process) => ({ process, depth: 0 })).reverse();
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      if (seen.has(next.process)) continue;
      seen.add(next.process);
      listed.push(next);
      const depth = next.depth + 1;
      const children = byParent.get(next.process.pid) ?? [];
      for (const process of children.toReversed()) stack.push({ process, depth });
    }
  };
  const sorted = processes.toSorted(compare);
  visit(sorted.filter((process) => !pids.has(parentOf(process)) || parentOf(process) === process.pid));
  // The rest is in cycles.
  visit(sorted.filter((process) => !seen.has(process)));
  return listed;
}

/** Threads belong below their process. */
function parentOf(process: Listable): number {
  return process.pid === process.tgid ? process.ppid : process.tgid;
}

function rank(state: string): number {
  const place = STATE_ORDER.indexOf(state);
  return place < 0 ? STATE_ORDER.length : place;
}
