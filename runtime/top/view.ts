import { DomschedError } from '../error.ts';
import type { Tick, TickDomain, TickProcess } from '../tick/tick.ts';

/** A process in the list, with facts about its domain. */
export interface TopEntry {
  readonly process: TickProcess;
  readonly domain: TickDomain;
  /** Part of one CPU since the previous tick. */
  readonly share: number;
}

type EntryOrder = (a: TopEntry, b: TopEntry) => number;

const byText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** Orders of the list, by the name that `--sort` takes; keys.ts has the keys. */
export const ORDERS: Readonly<Record<string, EntryOrder>> = {
  cpu: (a, b) => b.share - a.share || Number(isHeld(b)) - Number(isHeld(a)),
  time: (a, b) => b.process.cpuNs - a.process.cpuNs,
  held: (a, b) => Number(isHeld(b)) - Number(isHeld(a)) || b.share - a.share,
  domain: (a, b) => byText(a.domain.name, b.domain.name),
  pid: (a, b) => a.process.pid - b.process.pid,
  name: (a, b) => byText(a.process.comm, b.process.comm),
  nice: (a, b) => a.process.nice - b.process.nice,
};

/** Which part of a tick is shown, and how. */
export interface TopView {
  readonly sort: string;
  readonly reversed: boolean;
  readonly kernelThreads: boolean;
  readonly paused: boolean;
  /** Lines by which the list is scrolled. */
  readonly top: number;
}

export const FIRST_VIEW: TopView = {
  sort: 'cpu',
  reversed: false,
  kernelThreads: false,
  paused: false,
  top: 0,
};

/** @throws DomschedError `usage` */
export function orderNamed(name: string): string {
  if (Object.hasOwn(ORDERS, name)) return name;
  throw new DomschedError(
    'usage',
    `--sort knows ${Object.keys(ORDERS).join(', ')}, not ${JSON.stringify(name)}`,
    {
      sort: name,
    },
  );
}

/** The processes in the view's order; ties go by domain and pid. */
export function entriesOf(tick: Tick, view: TopView): TopEntry[] {
  const { elapsedMs } = tick;
  const entries: TopEntry[] = [];
  for (const domain of tick.domains) {
    for (const process of domain.processes) {
      if (process.kernelThread && !view.kernelThreads) continue;
      const share = elapsedMs > 0 ? process.ranNs / 1e6 / elapsedMs : 0;
      entries.push({ process, domain, share: Number.isFinite(share) ? Math.max(0, share) : 0 });
    }
  }
  const order = ORDERS[view.sort]!;
  const sign = view.reversed ? -1 : 1;
  return entries.sort(
    (a, b) =>
      sign * order(a, b) || byText(a.domain.name, b.domain.name) || a.process.pid - b.process.pid || 0,
  );
}

export function isHeld({ process }: TopEntry): boolean {
  return process.held !== undefined || process.state === 'held';
}
