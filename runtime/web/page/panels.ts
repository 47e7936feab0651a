import { culpritName } from '../../tick/culprit.ts';
import type { Store, Track } from './store.ts';

const MOST_HELD = 100;
const MOST_EDITS = 40;
const MOST_WAITS = 8;

/** Shows the held processes, with reasons. */
export function showHeld(list: HTMLElement, count: HTMLElement, store: Store): void {
  const held: { name: string; track: Track }[] = [];
  for (const { facts, tracks } of store.domains.values()) {
    for (const track of tracks.values()) {
      if (track.process.held !== undefined) held.push({ name: facts.name, track });
    }
  }
  count.textContent = String(held.length);
  const now = store.last === undefined ? 0 : Date.parse(store.last.time);
  const items = held.slice(0, MOST_HELD).map(({ name, track: { process } }) => {
    const { policy, reason, since } = process.held!;
    const host = process.heldFor === undefined ? '' : `; now for ${process.heldFor}`;
    const seconds = Math.max(0, (now - Date.parse(since)) / 1000);
    return item(
      [process.comm, ` ${process.pid}`, ` in ${name}`],
      `${policy}: ${reason}${host}`,
      Number.isFinite(seconds) ? `for ${age(seconds)}` : '',
    );
  });
  if (held.length === 0) items.push(note('Nothing is held.'));
  if (held.length > MOST_HELD) items.push(note(`and ${held.length - MOST_HELD} more`));
  list.replaceChildren(...items);
}

/** The daemon's own actions have no policy. */
function because(policy: string, reason: string): string {
  return policy === '-' ? reason : `${policy}: ${reason}`;
}

/** Shows the latest edits, newest first. */
export function showEdits(list: HTMLElement, store: Store): void {
  const names = new Map([...store.domains].map(([id, { facts }]) => [id, facts.name]));
  const now = store.last?.ms ?? 0;
  const items = store.actions
    .slice(-MOST_EDITS)
    .reverse()
    .map((action) => {
      const { comm = '', pid, domain, outcome, code, policy, reason, ms } = action;
      const target = pid === undefined ? '' : ` ${comm} ${pid}`;
      const made = item(
        [action.action, target, ` in ${names.get(domain) ?? domain}`],
        outcome === 'done'
          ? because(policy, reason)
          : `${outcome} [${code ?? 'unknown'}], ${because(policy, reason)}`,
        `${age(Math.max(0, now - ms) / 1000)} ago`,
      );
      if (outcome !== 'done') made.classList.add('bad');
      return made;
    });
  if (items.length === 0) items.push(note('Nothing was edited.'));
  list.replaceChildren(...items);
}

/** Shows who waited longest for whom when it was told last. */
export function showWaits(list: HTMLElement, { waits }: Store): void {
  const items = waits.slice(0, MOST_WAITS).map(({ domain, comm, culprit, place, ns }) => {
    const where = place === 'guest' ? 'in its guest' : 'on the host';
    return item([comm, '', ` in ${domain}`], `for ${culpritName(culprit)}, ${where}`, age(ns / 1e9));
  });
  if (items.length === 0) items.push(note('Nothing waited.'));
  list.replaceChildren(...items);
}

export function item(title: readonly [string, string, string], why: string, when: string): HTMLElement {
  const made = document.createElement('li');
  const head = document.createElement('div');
  const strong = document.createElement('strong');
  strong.textContent = title[0];
  const time = document.createElement('span');
  time.className = 'when';
  time.textContent = when;
  head.append(strong, title[1], title[2], time);
  const reason = document.createElement('div');
  reason.className = 'why';
  reason.textContent = why;
  made.append(head, reason);
  return made;
}

export function note(text: string): HTMLElement {
  const made = document.createElement('li');
  made.className = 'none';
  made.textContent = text;
  return made;
}

export function age(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
