import { busyJudge, DEFAULT_THRESHOLD, type WaitingKeys, waitingNow } from './busy.ts';
import { geometric, spread } from './levels.ts';
import type { Selector } from './selector.ts';
import type { Action, DomainView, Policy, ProcessView, World } from './world.ts';

export interface PriorityOptions {
  /**
   * Most important first. A process gets the place of the first selector that matches it; one that no selector matches
   * is left alone.
   */
  readonly order: readonly Selector[];
  /** Part of one CPU from which a process counts as running, 0 to 1. */
  readonly threshold?: number;
  /** Nice values of the first and the last place. */
  readonly nice?: readonly [first: number, last: number];
  /** Domain weights of the first and the last place. */
  readonly weight?: readonly [first: number, last: number];
}

interface Ranked {
  readonly process: ProcessView;
  readonly domain: DomainView;
  /** 0 is the most important. */
  readonly place: number;
}

/**
 * Orders processes over all domains (Tadokoro et al., 3.2). A domain gets the weight of its most important process, and
 * nice values keep the order inside it. A process is held while a more important one of another domain runs that it
 * would otherwise beat through its own domain's weight.
 *
 * Example: the order is DB, WEB, BACKUP; DB and BACKUP share a domain. WEB's domain weighs less than theirs, so while
 * DB is idle BACKUP would run at DB's weight, ahead of WEB. It is held while WEB runs.
 */
export function priority(options: PriorityOptions): Policy<WaitingKeys> {
  const { order, threshold = DEFAULT_THRESHOLD, nice = [-5, 15], weight = [1024, 64] } = options;
  return (world, waiting) => {
    const isBusy = busyJudge(world, threshold, waiting);
    const ranked = rank(world, order);
    const busy = ranked.filter(({ process }) => isBusy(process));
    const best = new Map<string, number>();
    for (const { domain, place } of ranked)
      best.set(domain.id, Math.min(place, best.get(domain.id) ?? place));
    const actions: Action[] = [];
    for (const domain of world.domains) {
      const place = best.get(domain.id);
      if (place === undefined || domain.weight === undefined) continue;
      const value = geometric(place, order.length, weight[0], weight[1]);
      actions.push({
        type: 'weight',
        domain: domain.id,
        weight: value,
        reason: `its first process is ${place + 1}.`,
      });
    }
    for (const one of ranked) {
      const { process, domain, place } = one;
      if (places(ranked, domain).size > 1) {
        const value = spread(place, order.length, nice[0], nice[1]);
        actions.push({
          type: 'nice',
          process: process.key,
          nice: value,
          reason: `${place + 1}. of the order`,
        });
      }
      const before = busy.find((other) => suffers(other, one, best));
      if (before === undefined) continue;
      const { domainName, comm, pid, elsewhere } = before.process;
      actions.push({
        type: 'hold',
        process: process.key,
        reason: `${domainName}: ${comm} (${pid}) runs`,
        ...(elsewhere && { host: elsewhere.host }),
      });
    }
    return { actions, memory: waitingNow(ranked.map(({ process }) => process)) };
  };
}

function rank(world: World, order: readonly Selector[]): Ranked[] {
  return world.domains.flatMap((domain) =>
    domain.processes
      .filter(({ key }) => world.subjects.has(key))
      .map((process) => ({ process, domain, place: order.findIndex((fits) => fits(process)) }))
      .filter(({ place }) => place >= 0),
  );
}

function places(ranked: readonly Ranked[], domain: DomainView): ReadonlySet<number> {
  return new Set(ranked.filter((one) => one.domain === domain).map(({ place }) => place));
}

/** Whether a less important process would precede a more important one in spite of weights and nice values. */
function suffers(important: Ranked, other: Ranked, best: ReadonlyMap<string, number>): boolean {
  if (other.place <= important.place || other.domain === important.domain) return false;
  // A hypervisor without weights cannot order two domains.
  if (important.domain.weight === undefined || other.domain.weight === undefined) return true;
  return best.get(other.domain.id)! <= best.get(important.domain.id)!;
}
