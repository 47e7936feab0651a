import type { TickFleet, TickFleetHost } from '../tick/tick.ts';
import type { FleetLine } from './line.ts';

/** @returns what differs from the line before; undefined if nothing does */
export function fleetLine(
  now: TickFleet | undefined,
  last: TickFleet | undefined,
): FleetLine | null | undefined {
  if (now === undefined) return last === undefined ? undefined : null;
  const { heard, ...facts } = now;
  const line: Record<string, unknown> = {};
  for (const [fact, value] of Object.entries(facts)) {
    if (!isSame(value, last?.[fact as keyof TickFleet])) line[fact] = value;
  }
  const before = new Map(last?.heard.map((one) => [one.host, one]));
  const changed = heard.filter((one) => !isSame(one, before.get(one.host)));
  if (changed.length > 0) line.heard = changed;
  for (const { host } of heard) before.delete(host);
  if (before.size > 0) line.gone = [...before.keys()];
  return last !== undefined && Object.keys(line).length === 0 ? undefined : (line as FleetLine);
}

/** What is known after a line. Does not use Node: the page decodes the daemon's events with it. */
export function changedFleet(
  last: TickFleet | undefined,
  line: FleetLine | null | undefined,
): TickFleet | undefined {
  if (line === undefined) return last;
  if (line === null) return undefined;
  const { heard = [], gone = [], ...facts } = line;
  const hosts = new Map<string, TickFleetHost>(last?.heard.map((one) => [one.host, one]));
  for (const host of gone) hosts.delete(host);
  for (const one of heard) hosts.set(one.host, one);
  return { ...NEW_FLEET, ...last, ...(facts as Partial<TickFleet>), heard: [...hosts.values()] };
}

const NEW_FLEET: TickFleet = {
  name: '',
  connected: false,
  sinceMs: 0,
  listens: false,
  few: false,
  hosts: 0,
  silent: [],
  heard: [],
  sent: 0,
  received: 0,
  refused: {},
  policy: { isCurrent: false },
};

function isSame(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
