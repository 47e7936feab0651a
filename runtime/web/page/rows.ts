import type { TickDomain } from '../../tick/tick.ts';
import { DOING, SAMPLES, type Store, type Track } from './store.ts';

/** A line of the list. */
export type PageRow =
  | { readonly kind: 'domain'; readonly id: string; readonly facts: TickDomain; readonly colour: number }
  | { readonly kind: 'process'; readonly id: string; readonly track: Track; readonly colour: number };

export interface PageView {
  /** Lower case; matches names of processes and domains, and pids. */
  readonly filter: string;
  readonly kernelThreads: boolean;
  /** Only processes that ran or were held within the visible time. */
  readonly busyOnly: boolean;
  readonly sort: 'pid' | 'busy';
  readonly collapsed: ReadonlySet<string>;
  /** Length of the visible time, in ms. */
  readonly windowMs: number;
}

/** The lines to show: each domain, followed by its processes. */
export function rowsOf(store: Store, view: PageView): PageRow[] {
  const rows: PageRow[] = [];
  const places = placesWithin(store, view.windowMs);
  let colour = 0;
  for (const [id, { facts, tracks }] of store.domains) {
    const isNamed = view.filter !== '' && facts.name.toLowerCase().includes(view.filter);
    const shown: PageRow[] = [];
    if (!view.collapsed.has(id)) {
      for (const track of sorted([...tracks.values()], view, places)) {
        if (!isShown(track, view, isNamed, places)) continue;
        shown.push({ kind: 'process', id: `${id} ${track.process.key}`, track, colour });
      }
    }
    const isWanted = view.filter === '' || isNamed || shown.length > 0;
    if (isWanted) rows.push({ kind: 'domain', id, facts, colour });
    for (const row of shown) rows.push(row);
    colour++;
  }
  return rows;
}

function isShown(track: Track, view: PageView, isNamed: boolean, places: readonly number[]): boolean {
  const { comm, pid, kernelThread, held } = track.process;
  if (kernelThread && !view.kernelThreads) return false;
  if (
    view.filter !== '' &&
    !isNamed &&
    !comm.toLowerCase().includes(view.filter) &&
    String(pid) !== view.filter
  ) {
    return false;
  }
  return !view.busyOnly || held !== undefined || activity(track, places) > 0;
}

function sorted(tracks: Track[], { sort }: PageView, places: readonly number[]): Track[] {
  if (sort === 'pid') return tracks.sort((a, b) => a.process.pid - b.process.pid);
  const busy = new Map(tracks.map((track) => [track, activity(track, places)]));
  return tracks.sort((a, b) => busy.get(b)! - busy.get(a)! || a.process.pid - b.process.pid);
}

/** CPU time at some places, plus a little for being held. */
function activity({ ran, doing }: Track, places: readonly number[]): number {
  let sum = 0;
  for (const place of places) sum += ran[place]! + (doing[place] === DOING.held ? 0.01 : 0);
  return sum;
}

/** Places in the rings of the ticks of the last `windowMs`, oldest first. */
export function placesWithin(store: Store, windowMs: number): number[] {
  const { count, times } = store;
  const from = times[(count - 1) % SAMPLES]! - windowMs;
  const places: number[] = [];
  for (let n = Math.max(0, count - SAMPLES); n < count; n++) {
    if (times[n % SAMPLES]! >= from) places.push(n % SAMPLES);
  }
  return places;
}
