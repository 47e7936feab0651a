import type { Selector } from './selector.ts';
import { gauge, type TargetGauge, type TargetWindow, type WaitSum, type WaitTarget } from './wait-target.ts';
import { type Action, type DomainView, type Policy, type ProcessView, type World, wholeMs } from './world.ts';

export interface ProtectOptions {
  /** Processes that are to wait little. */
  readonly protect: Selector;
  /** What each of them may wait. */
  readonly target: WaitTarget;
  /** A second; for a part of all looks a minute. */
  readonly windowMs?: number;
  /** Nice value of subjects in a guest whose protected processes wait for them. */
  readonly nice?: number;
}

/** After so long in which a domain's subjects were held they run for one tick: they may disturb nobody by now. */
const PROBE_MS = 10_000;
/** Each probe that fails doubles the time, up to so many times. */
const MOST_PATIENCE = 8;
const WINDOW_MS = 1_000;
const LOOKS_WINDOW_MS = 60_000;
/** What is aimed at, as part of the target: measures and edits are never exact. */
const AIM = 0.85;
/** How fast the price of letting subjects run falls when it is seen to be lower, per tick; it rises at once. */
const CHEAPER = 0.3;
/** Who gets nearly no CPU time waits many times as long as it runs; that is no price for what it does otherwise. */
const MOST_PRICE = 10;
/** Less than this part of a CPU is no activity by which a price can be told. */
const ACTIVE = 0.005;
/** Time over which `held … % of the time` is told, and nice values outlast the last wait. */
const TOLD_MS = 10_000;
const NICE_MS = 60_000;

/** What we know of the subjects of one domain. */
interface Payer {
  /** Wait of a protected process per unit of its activity while these subjects run. */
  readonly price: number;
  /** Likewise in the tick after that in which a hold was asked for: a hold takes time, and an edit is work for the host too. */
  readonly holdPrice: number;
  /** Part of the time in which they were held of late. */
  readonly heldPart: number;
  /** Since when they are held without a break, and how often that was in vain. */
  readonly heldMs: number | undefined;
  readonly patience: number;
  /** When they last ran, to take turns. */
  readonly ranMs: number;
  /** Until when they have another nice value. */
  readonly niceMs: number;
}

/** What a protected process waited at one tick, in ms. */
interface ProcessWait {
  readonly atMs: number;
  readonly process: string;
  readonly name: string;
  readonly domain: string;
  /** For whom its own guest ran instead. */
  readonly inside: number;
  /** For other machines: its vCPU waited. */
  readonly outside: number;
  readonly ran: number;
}

/** A protected process's window, and what of it its own guest is to blame for. */
interface Worst {
  readonly process: string | undefined;
  readonly name?: string | undefined;
  readonly sum: WaitSum;
  readonly inside: WaitSum;
}

interface ProtectMemory {
  readonly waits: readonly ProcessWait[];
  /** Activity of the busiest protected process at the last two ticks, as part of a CPU. */
  readonly activity: readonly number[];
  readonly payers: Readonly<Record<string, Payer>>;
}

const NEW: Payer = {
  price: 0,
  holdPrice: 0,
  heldPart: 0,
  heldMs: undefined,
  patience: 1,
  ranMs: -Infinity,
  niceMs: -Infinity,
};

/**
 * Keeps the waits of protected processes below a target by holding subjects for just so much of the time (after
 * Heracles: D. Lo et al., "Improving Resource Efficiency at Scale", ISCA 2015). At each tick it knows what protected
 * processes waited in this window, and from earlier ticks what it costs them when the subjects of a domain run; the
 * subjects run as long as both together stay below the target. Where nobody waits, as on a host with spare CPUs, nobody
 * is held.
 *
 * A wait in its own guest's run queue is the fault of that guest; a wait of its vCPU may be that of all machines.
 */
export function protect(options: ProtectOptions): Policy<ProtectMemory> {
  const { protect: isProtected, target, nice = 19 } = options;
  const { windowMs = 'p99Ms' in target ? LOOKS_WINDOW_MS : WINDOW_MS } = options;
  const measure = gauge(target);
  return (world, memory) => {
    const now = waitsNow(world, isProtected);
    const window = { windowMs, looks: windowMs / wholeMs(world) };
    // What counts is the window that ends with the next tick.
    const before = (memory?.waits ?? []).filter(
      ({ atMs, inside, outside }) =>
        world.nowMs + wholeMs(world) - atMs < windowMs &&
        // Only those are counted; a window may have thousands of looks.
        (measure.counts === Infinity || inside + outside > measure.counts),
    );
    const waits = [...before, ...now.waits];
    const activity = [now.activity, ...(memory?.activity ?? [])].slice(0, 2);
    const expected = Math.max(...activity) * wholeMs(world);
    const domains = world.domains
      .map((domain) => ({ domain, subjects: domain.processes.filter(({ key }) => world.subjects.has(key)) }))
      .filter(({ subjects }) => subjects.length > 0);
    const running = domains.filter(({ subjects }) => subjects.some(({ ranNs }) => ranNs > 0));
    const payers: Record<string, Payer> = {};
    const actions: Action[] = [];
    let planned = 0;
    const learnt = domains
      .map(({ domain, subjects }) => {
        const payer = memory?.payers[domain.id] ?? NEW;
        const ran = running.some((one) => one.domain === domain);
        const mine = worst(now.waits, domain.id, PLAIN, window);
        return {
          domain,
          subjects,
          before: payer,
          had: worst(waits, domain.id, measure, window),
          ...learn(payer, ran, mine.sum.ms / Math.max(1, running.length), now.activity, world),
        };
      })
      // Whoever has run least recently comes first: they take turns.
      .sort((a, b) => a.before.ranMs - b.before.ranMs);
    for (const { domain, subjects, before, had, price, holdPrice } of learnt) {
      const cost = (price + holdPrice) * expected;
      const probes = before.heldMs !== undefined && world.nowMs - before.heldMs >= PROBE_MS * before.patience;
      const fits = cost === 0 || measure.usedWith(had.sum, window, planned + cost, expected) <= AIM;
      const hold = !fits && !probes && had.process !== undefined;
      if (!hold) planned += cost;
      const part = Math.min(1, world.elapsedMs / TOLD_MS);
      const heldPart = before.heldPart + part * ((hold ? 1 : 0) - before.heldPart);
      const slower = measure.used(had.inside, window) > 1 / 2;
      payers[domain.id] = {
        price,
        holdPrice,
        heldPart,
        heldMs: hold ? (before.heldMs ?? world.nowMs) : undefined,
        patience:
          price < before.price * (1 - CHEAPER / 2)
            ? 1
            : probes
              ? Math.min(MOST_PATIENCE, before.patience * 2)
              : before.patience,
        ranMs: hold ? before.ranMs : world.nowMs,
        niceMs: slower ? world.nowMs + NICE_MS : before.niceMs,
      };
      const why = `${had.name ?? 'a protected process'} ${measure.tell(had.sum, window)}`;
      for (const { key } of subjects) {
        if (hold)
          actions.push({
            type: 'hold',
            process: key,
            reason: `held ${Math.round(heldPart * 100)} % of the time: ${why}`,
          });
        if (payers[domain.id]!.niceMs > world.nowMs)
          actions.push({ type: 'nice', process: key, nice, reason: why });
      }
    }
    return { actions, memory: { waits, activity, payers } };
  };
}

/** By what was waited alone. */
const PLAIN = gauge({ waitMs: 1 });
const NOTHING: WaitSum = { ms: 0, ranMs: 0, beyond: 0 };

/** The protected process that has used up most of the target, as far as the subjects of a domain may be to blame. */
function worst(
  waits: readonly ProcessWait[],
  domain: string,
  measure: TargetGauge,
  window: TargetWindow,
): Worst {
  const sums = new Map<string, Worst>();
  for (const { process, name, domain: where, inside, outside, ran } of waits) {
    const own = where === domain ? inside : 0;
    const before = sums.get(process) ?? { sum: NOTHING, inside: NOTHING };
    const add = (to: WaitSum, ms: number): WaitSum => ({
      ms: to.ms + ms,
      ranMs: to.ranMs + ran,
      beyond: to.beyond + (ms > measure.counts ? 1 : 0),
    });
    sums.set(process, {
      process,
      name,
      sum: add(before.sum, outside + own),
      inside: add(before.inside, own),
    });
  }
  let found: Worst = { process: undefined, sum: NOTHING, inside: NOTHING };
  for (const one of sums.values())
    if (found.process === undefined || measure.used(one.sum, window) > measure.used(found.sum, window))
      found = one;
  return found;
}

/**
 * If subjects run on after the tick in which their hold was to be done, others let them, and it is a run as any.
 * @param ms what was waited at this tick, as far as these subjects are to blame
 */
function learn(
  { price, holdPrice, heldMs }: Payer,
  ran: boolean,
  ms: number,
  activity: number,
  { nowMs, elapsedMs }: World,
): Pick<Payer, 'price' | 'holdPrice'> {
  const isBeingHeld = heldMs !== undefined && nowMs - heldMs < 2 * elapsedMs;
  if ((!ran && !isBeingHeld) || elapsedMs <= 0 || (activity < ACTIVE && ms === 0))
    return { price, holdPrice };
  const seen = Math.min(MOST_PRICE, ms / (Math.max(activity, ACTIVE) * elapsedMs));
  // Some holds take long by chance: what one of them cost is not yet what the next will.
  if (isBeingHeld) return { price, holdPrice: holdPrice + CHEAPER * (seen - holdPrice) };
  return { price: seen >= price ? seen : price + CHEAPER * (seen - price), holdPrice };
}

function waitsNow(
  { domains, nowMs, elapsedMs }: World,
  isProtected: Selector,
): { waits: ProcessWait[]; activity: number } {
  const waits: ProcessWait[] = [];
  let activity = 0;
  for (const domain of domains) {
    for (const process of domain.processes) {
      if (process.kernelThread || !isProtected(process)) continue;
      const { inside, outside } = waitOf(process, domain, elapsedMs);
      const name = `${process.domainName}: ${process.comm} (${process.pid})`;
      const ran = process.ranNs / 1e6;
      waits.push({ atMs: nowMs, process: process.key, name, domain: domain.id, inside, outside, ran });
      if (elapsedMs > 0) activity = Math.max(activity, process.ranNs / 1e6 / elapsedMs);
    }
  }
  return { waits, activity: Math.min(1, activity) };
}

/** How long a process waited since the last tick, in ms: in its guest's run queue, and with its vCPU on the host. */
function waitOf(
  process: ProcessView,
  { host }: DomainView,
  elapsedMs: number,
): { inside: number; outside: number } {
  // Without the kernel's account the state at this look has to do.
  const queuedMs = Math.min(
    elapsedMs,
    (process.waitedNs ?? (process.state === 'ready' ? elapsedMs * 1e6 : 0)) / 1e6,
  );
  const vcpu = host?.vcpus[process.cpu ?? -1];
  // A host that does not tell may have taken all of it.
  if (vcpu === undefined) return { inside: 0, outside: queuedMs };
  const stolen = vcpu.waitedNs / Math.max(1, vcpu.ranNs + vcpu.waitedNs);
  // The part of its vCPU's time in which it was the one that ran, or would have.
  const part = vcpu.ranNs > 0 ? Math.min(1, process.ranNs / vcpu.ranNs) : process.state === 'running' ? 1 : 0;
  return {
    inside: queuedMs * (1 - stolen),
    outside: Math.min(elapsedMs, (part * vcpu.waitedNs) / 1e6 + queuedMs * stolen),
  };
}
