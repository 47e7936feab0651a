import { Counter, Gauge, type Registry } from '@prometheus-io/client';
import type { TickFleet } from '../tick/tick.ts';

/** How this host stands in its fleet. Other hosts cannot add a series: reasons are ours, and silent hosts are counted. */
export class FleetSeries {
  readonly #connected: Gauge;
  readonly #state: Gauge;
  readonly #revision: Gauge;
  readonly #current: Gauge;
  readonly #listens: Gauge;
  readonly #hosts: Gauge<'state'>;
  readonly #messages: Counter<'direction'>;
  readonly #refused: Counter<'reason'>;
  #before: TickFleet | undefined;

  constructor(registry: Registry) {
    const registers = [registry];
    this.#connected = new Gauge({
      name: 'domsched_fleet_connected',
      help: 'Whether this host is connected to a server of its fleet',
      registers,
    });
    this.#state = new Gauge({
      name: 'domsched_fleet_state_seconds',
      help: 'How long it has been connected, or cut off',
      registers,
    });
    this.#revision = new Gauge({
      name: 'domsched_fleet_policy_revision',
      help: 'Revision of the policy of the fleet that is in force here, 0 for none',
      registers,
    });
    this.#current = new Gauge({
      name: 'domsched_fleet_policy_current',
      help: 'Whether that is the latest, as the store of the fleet says',
      registers,
    });
    this.#listens = new Gauge({
      name: 'domsched_fleet_listens',
      help: 'Whether this host hears others: not while nobody here could be held for them',
      registers,
    });
    this.#hosts = new Gauge({
      name: 'domsched_fleet_hosts',
      help: 'Other hosts: those that were heard, and those that fell silent while they were at work',
      labelNames: ['state'],
      registers,
    });
    this.#messages = new Counter({
      name: 'domsched_fleet_messages_total',
      help: 'Messages of hosts about what they do',
      labelNames: ['direction'],
      registers,
    });
    this.#refused = new Counter({
      name: 'domsched_fleet_refused_total',
      help: 'Messages of other hosts that were not taken, by reason',
      labelNames: ['reason'],
      registers,
    });
  }

  set(now: TickFleet): void {
    // Counts of a fleet that was configured anew start again.
    const before =
      this.#before !== undefined && this.#before.received <= now.received ? this.#before : undefined;
    this.#before = now;
    this.#connected.set(now.connected ? 1 : 0);
    this.#state.set(now.sinceMs / 1000);
    this.#revision.set(now.policy.revision ?? 0);
    this.#current.set(now.policy.isCurrent ? 1 : 0);
    this.#listens.set(now.listens ? 1 : 0);
    this.#hosts.set({ state: 'heard' }, now.hosts - now.silent.length);
    this.#hosts.set({ state: 'silent' }, now.silent.length);
    this.#messages.inc({ direction: 'sent' }, Math.max(0, now.sent - (before?.sent ?? 0)));
    this.#messages.inc({ direction: 'received' }, now.received - (before?.received ?? 0));
    for (const [reason, count] of Object.entries(now.refused))
      this.#refused.inc({ reason }, Math.max(0, count - (before?.refused[reason] ?? 0)));
  }
}
