import type { TickFleet, TickFleetHost } from '../../tick/tick.ts';
import { age, item, note } from './panels.ts';
import type { Store } from './store.ts';

/** Most hosts, and for each most processes that are held for it, that are shown. */
const MOST_HOSTS = 100;
const MOST_HELD = 5;

/** The elements of the panel. */
export interface FleetPanel {
  readonly section: HTMLElement;
  readonly count: HTMLElement;
  readonly state: HTMLElement;
  readonly list: HTMLElement;
}

/** Shows the other hosts of the fleet: those for which somebody here is held first, then silent ones, then the busiest. */
export function showFleet({ section, count, state, list }: FleetPanel, store: Store): void {
  const { fleet, last } = store;
  section.hidden = fleet === undefined;
  if (fleet === undefined || last === undefined) return;
  count.textContent = String(fleet.hosts);
  state.textContent = stateText(fleet);
  const held = heldFor(store);
  const places = new Map(fleet.heard.map((one) => [one, place(one, held)]));
  const shown = [...fleet.heard]
    .sort((a, b) => places.get(a)! - places.get(b)! || share(b) - share(a) || (a.host < b.host ? -1 : 1))
    .slice(0, MOST_HOSTS);
  const items = shown.map((one) => hostItem(one, held.get(one.host) ?? [], last.ms));
  if (fleet.hosts === 0)
    items.push(
      note(
        fleet.listens
          ? 'No other host has been heard: who is idle says nothing.'
          : 'They are not listened to.',
      ),
    );
  if (fleet.few) items.push(note('More are at work; these are enough for the policies here.'));
  if (fleet.hosts > shown.length) items.push(note(`and ${fleet.hosts - shown.length} more`));
  list.replaceChildren(...items);
}

function stateText({ name, connected, sinceMs, listens, policy }: TickFleet): string {
  const since = age(sinceMs / 1000);
  const parts = [
    connected ? `${name}: connected for ${since}` : `${name}: cut off for ${since}, goes on by itself`,
  ];
  parts.push(policy.revision === undefined ? 'no policy of the fleet' : `policy ${policy.revision}`);
  if (policy.refused !== undefined) parts.push(`cannot use policy ${policy.refused.revision}`);
  else if (policy.revision !== undefined && !policy.isCurrent) parts.push('its store is away');
  if (!listens) parts.push('nobody here could be held for others');
  return parts.join('; ');
}

/** Processes here by the host whose activity they are held for. */
function heldFor(store: Store): Map<string, string[]> {
  const held = new Map<string, string[]>();
  for (const { facts, tracks } of store.domains.values()) {
    for (const { process } of tracks.values()) {
      const { heldFor: host, comm, pid } = process;
      if (host === undefined) continue;
      const known = held.get(host);
      const text = `${comm} ${pid} in ${facts.name}`;
      if (known === undefined) held.set(host, [text]);
      else known.push(text);
    }
  }
  return held;
}

function place({ host, state }: TickFleetHost, held: ReadonlyMap<string, unknown>): number {
  if (held.has(host)) return 0;
  return { silent: 1, active: 2, 'at rest': 3 }[state];
}

function share({ classes }: TickFleetHost): number {
  return classes.reduce((most, one) => Math.max(most, one.share), 0);
}

function hostItem(
  { host, state, heardMs, revision, classes }: TickFleetHost,
  held: readonly string[],
  nowMs: number,
): HTMLElement {
  const work = classes.map(
    (one) => `${one.domain}: ${one.comm}${percent(one.share)}${one.waits ? ', waits for a CPU' : ''}`,
  );
  const of = revision === undefined ? '' : ` · policy ${revision}`;
  const when = `${age(Math.max(0, nowMs - heardMs) / 1000)} ago`;
  const what = work.join('; ') || 'nothing at work';
  const made = item(
    [host, ` ${state}${of}`, ''],
    state === 'silent' ? `when last heard, ${what}` : what,
    when,
  );
  if (state === 'silent') made.classList.add('bad');
  if (held.length > 0) {
    const more = held.length > MOST_HELD ? ` and ${held.length - MOST_HELD} more` : '';
    const line = document.createElement('div');
    line.className = 'holds';
    line.textContent = `held here for it: ${held.slice(0, MOST_HELD).join(', ')}${more}`;
    made.append(line);
  }
  return made;
}

/** What a host says is a step: at least so much. */
function percent(part: number): string {
  return part === 0 ? '' : ` from ${Number((part * 100).toFixed(1))} %`;
}
