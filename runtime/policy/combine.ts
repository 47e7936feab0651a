import { type Alert, alertOf, type RousedBy } from './alert.ts';
import { type ClaimsMemory, credible } from './credible.ts';
import { type Guarantee, type GuaranteeMemory, keepGuarantees } from './guarantee.ts';
import { type HoldLimit, limitHolds, type Slices } from './limit.ts';
import { isUntouchable, type Selector } from './selector.ts';
import { isOpen, type WindowSpec } from './window.ts';
import type { Action, Decision, DomainView, Observed, Policy, ProcessView } from './world.ts';

/** A policy with its place among others. */
export interface PlacedPolicy {
  readonly name: string;
  readonly policy: Policy;
  /** Its subjects. */
  readonly select: Selector;
  readonly windows: readonly WindowSpec[];
  /** Undefined means no limit. */
  readonly limit: HoldLimit | undefined;
  /** It is about what a host's own processes take from each other, and does not see domains elsewhere. */
  readonly ownHostOnly?: true;
  /**
   * What it asks of processes elsewhere about one of its subjects; undefined if no process there can change what becomes of
   * that one. Absent if it asks the same about each: then its name stands for that.
   */
  readonly asks?: (subject: ProcessView) => string | undefined;
  /** Whose beginning to run it answers at once; absent if it decides by what happens over whole intervals. */
  readonly rousedBy?: RousedBy;
  /** Its configuration, if it keeps accounts (`proportional-share.ts`) that the next daemon is to go on with. */
  readonly account?: string;
}

/** An action with the policy that wants it. */
export type NamedAction = Action & { readonly policy: string };

export interface CombinedMemory {
  readonly policies: Readonly<Record<string, unknown>>;
  readonly slices: Slices;
  /** By domain. */
  readonly claims: Readonly<Record<string, ClaimsMemory>>;
  readonly accounts: Readonly<Record<string, GuaranteeMemory>>;
}

export const NOTHING_YET: CombinedMemory = { policies: {}, slices: {}, claims: {}, accounts: {} };
const NO_GUARANTEE: Guarantee = { of: () => 0, sliceMs: 0 };

export interface CombinedDecision {
  readonly actions: NamedAction[];
  readonly memory: CombinedMemory;
  /** Ids of domains that have long claimed more CPU time than their host saw. */
  readonly overstated: ReadonlySet<string>;
  /** This host's domains as policies saw them: with what may be believed of their activity. */
  readonly believed: readonly DomainView[];
  /** What policies ask of domains elsewhere now, about processes here: nothing if no decision depends on any. */
  readonly asked: ReadonlySet<string>;
  /** Undefined if nothing that happens before the next tick could hold anybody at once. */
  readonly alert: Alert | undefined;
}

/**
 * Combines several policies into one. The first policy in the list that selects a process and is in its time window
 * decides about it alone; a domain's weight and cap come from the first policy that names any. No policy gets what
 * `never` selects, kernel threads or the first process of a guest.
 *
 * Policies see a guest's activity as far as its host confirms it ({@link credible}), and what a domain is guaranteed is
 * not taken from it by any of them. Domains elsewhere are seen and nothing more: no action on them is passed on.
 *
 * The combined policy also takes `kept`: holds to keep while we know too little to end them. One is dropped when its
 * policy no longer owns the process or its limit is reached.
 */
export function combine(
  entries: readonly PlacedPolicy[],
  never: Selector = () => false,
  onError: (policy: string, error: unknown) => void = (_, error) => {
    throw error;
  },
  guarantee: Guarantee = NO_GUARANTEE,
) {
  const subjectsOf = assigner(never);
  const decide = (
    told: Observed,
    memory: CombinedMemory = NOTHING_YET,
    kept: readonly (NamedAction & { type: 'hold' })[] = [],
  ): CombinedDecision => {
    const elsewhere = told.domains.filter((domain) => domain.elsewhere);
    const domains = told.domains
      .filter((domain) => !domain.elsewhere)
      .map((domain) => credible(domain, memory.claims[domain.id]));
    const believed = domains.map(({ domain }) => domain);
    const observed = { ...told, domains: [...believed, ...elsewhere] };
    const foreign = new Set(
      elsewhere.flatMap(({ id, processes }) => [id, ...processes.map(({ key }) => key)]),
    );
    const open = entries.filter(({ windows }) => isOpen(windows, observed.date));
    const subjects = subjectsOf(observed, open);
    const asked = new Set(
      open.filter(({ ownHostOnly }) => !ownHostOnly).flatMap((entry) => askedBy(entry, subjects, believed)),
    );
    const wanted = new Map<string, NamedAction>();
    const limits = new Map(entries.map(({ name, limit }) => [name, limit]));
    const policies: Record<string, unknown> = {};
    for (const { name, policy, ownHostOnly } of open) {
      const own = subjects.get(name)!;
      let decision: Decision;
      try {
        const seen = ownHostOnly ? { ...observed, domains: believed } : observed;
        decision = policy({ ...seen, subjects: own }, memory.policies[name]);
        for (const action of decision.actions) check(action);
      } catch (error) {
        // Release what it held: a process that is held without a known reason is worse than one that runs.
        onError(name, error);
        continue;
      }
      policies[name] = decision.memory;
      for (const action of decision.actions) {
        if (foreign.has('process' in action ? action.process : action.domain)) continue;
        const target = targetOf(action);
        if ('process' in action ? own.has(action.process) : !wanted.has(target))
          wanted.set(target, { ...action, policy: name });
      }
    }
    for (const hold of kept) {
      const target = targetOf(hold);
      if (hold.policy in policies && subjects.get(hold.policy)!.has(hold.process) && !wanted.has(target))
        wanted.set(target, hold);
    }
    const held = new Set(
      [...wanted.values()].flatMap((each) => (each.type === 'hold' ? [each.process] : [])),
    );
    const alert = alertOf(
      { ...observed, domains: believed },
      open.map(({ name, rousedBy }) => ({ rousedBy, subjects: subjects.get(name)! })),
      held,
    );
    const world = { ...observed, subjects: new Set<string>() };
    const given = keepGuarantees(observed, domains, [...wanted.values()], memory.accounts, guarantee);
    const limited = limitHolds(world, given.actions, memory.slices, (action) =>
      limits.get((action as NamedAction).policy),
    );
    return {
      actions: limited.actions as NamedAction[],
      memory: {
        policies,
        slices: limited.slices,
        claims: Object.fromEntries(domains.map(({ domain, memory: claims }) => [domain.id, claims])),
        accounts: given.accounts,
      },
      overstated: new Set(domains.flatMap(({ domain, overstated }) => (overstated ? [domain.id] : []))),
      believed,
      asked,
      alert,
    };
  };
  return Object.assign(decide, { entries });
}

type Subjects = Map<string, Set<string>>;

/** What a policy asks of domains elsewhere about subjects of this host. */
function askedBy(
  { name, asks }: PlacedPolicy,
  subjects: Subjects,
  believed: readonly DomainView[],
): string[] {
  const own = subjects.get(name)!;
  const asked = new Set<string>();
  if (own.size === 0) return [];
  for (const { processes } of believed) {
    for (const process of processes) {
      if (!own.has(process.key)) continue;
      if (asks === undefined) return [name];
      const question = asks(process);
      if (question !== undefined) asked.add(question);
    }
  }
  return [...asked];
}

/** The owner of each process of a domain, and the owned ones. */
interface Assigned {
  readonly processes: readonly ProcessView[];
  readonly owners: readonly (PlacedPolicy | undefined)[];
  readonly own: readonly (readonly [PlacedPolicy, string])[];
}

/** Gives each process to the policy that decides about it. What was found for a process that did not change is kept. */
function assigner(never: Selector): (observed: Observed, open: readonly PlacedPolicy[]) => Subjects {
  let known = new Map<string, Assigned>();
  let before: readonly PlacedPolicy[] = [];
  return (observed, open) => {
    // In another time window they belong to others.
    if (open.length !== before.length || open.some((policy, i) => policy !== before[i])) {
      before = open;
      known.clear();
    }
    const ownerOf = (process: ProcessView): PlacedPolicy | undefined => {
      const owner = open.find(({ select }) => select(process));
      return owner === undefined || isUntouchable(process) || never(process) ? undefined : owner;
    };
    const now = new Map<string, Assigned>();
    const subjects = new Map(open.map(({ name }) => [name, new Set<string>()]));
    for (const { id, processes } of observed.domains) {
      const assigned = assign(processes, known.get(id), ownerOf);
      now.set(id, assigned);
      for (const [{ name }, key] of assigned.own) subjects.get(name)!.add(key);
    }
    known = now;
    return subjects;
  };
}

/** @param before what was found at the last look */
function assign(
  processes: readonly ProcessView[],
  before: Assigned | undefined,
  ownerOf: (process: ProcessView) => PlacedPolicy | undefined,
): Assigned {
  if (before?.processes === processes) return before;
  const owners: (PlacedPolicy | undefined)[] = [];
  const own: (readonly [PlacedPolicy, string])[] = [];
  for (let i = 0; i < processes.length; i++) {
    const process = processes[i]!;
    const owner = process === before?.processes[i] ? before.owners[i] : ownerOf(process);
    owners.push(owner);
    if (owner !== undefined) own.push([owner, process.key]);
  }
  return { processes, owners, own };
}

/** @throws TypeError for an invalid action: a user's policy may return anything */
function check(action: Action): void {
  const isNumber = (value: unknown, least: number, most: number) =>
    Number.isInteger(value) && (value as number) >= least && (value as number) <= most;
  const fits =
    (action.type === 'hold' && typeof action.process === 'string') ||
    (action.type === 'nice' && typeof action.process === 'string' && isNumber(action.nice, -20, 19)) ||
    (action.type === 'weight' && typeof action.domain === 'string' && isNumber(action.weight, 1, 65_535)) ||
    (action.type === 'cap' && typeof action.domain === 'string' && isNumber(action.cap, 0, 100_000));
  if (!fits || typeof action.reason !== 'string') throw new TypeError(`no action: ${JSON.stringify(action)}`);
}

/** The target of an action; two actions on one target exclude each other. */
export function targetOf(action: Action): string {
  return `${action.type} ${'process' in action ? action.process : action.domain}`;
}
