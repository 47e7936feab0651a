import { type HoldLimit, limitHolds, type Slices } from './limit.ts';
import { everyProcess, isUntouchable, type Selector } from './selector.ts';
import { isOpen, type WindowSpec } from './window.ts';
import type { Action, Decision, Policy, World } from './world.ts';

/** A policy with its place among others. */
export interface PlacedPolicy {
  readonly name: string;
  readonly policy: Policy;
  /** Its subjects. */
  readonly select: Selector;
  readonly windows: readonly WindowSpec[];
  /** Undefined: no limit. */
  readonly limit: HoldLimit | undefined;
}

/** An action, and whose it is. */
export type NamedAction = Action & { readonly policy: string };

export interface CombinedMemory {
  readonly policies: Readonly<Record<string, unknown>>;
  readonly slices: Slices;
}

/** What `combine` decides on: the world without a policy's own subjects. */
export type Observed = Omit<World, 'subjects'>;

/**
 * Several policies as one. A process belongs to the first policy in the list that selects it and whose time has
 * come, and nobody else decides on it; a domain's weight and cap are those of the first policy that names any. What
 * `never` selects belongs to nobody, nor do kernel threads and the first process of a guest.
 *
 * What decides takes holds that are to be kept, for as long as too little is known to end them, unless the policy that
 * they are of has no more say in the process or their limit is reached.
 */
export function combine(
  entries: readonly PlacedPolicy[],
  never: Selector = () => false,
  onError: (policy: string, error: unknown) => void = (_, error) => {
    throw error;
  },
) {
  return (
    observed: Observed,
    memory: CombinedMemory = { policies: {}, slices: {} },
    kept: readonly (NamedAction & { type: 'hold' })[] = [],
  ): { actions: NamedAction[]; memory: CombinedMemory } => {
    const open = entries.filter(({ windows }) => isOpen(windows, observed.date));
    const subjects = assign(observed, open, never);
    const wanted = new Map<string, NamedAction>();
    const limits = new Map(entries.map(({ name, limit }) => [name, limit]));
    const policies: Record<string, unknown> = {};
    for (const { name, policy } of open) {
      const own = subjects.get(name)!;
      let decision: Decision;
      try {
        decision = policy({ ...observed, subjects: own }, memory.policies[name]);
        for (const action of decision.actions) check(action);
      } catch (error) {
        // Whom it held goes on: better nobody is stopped than nobody knows why.
        onError(name, error);
        continue;
      }
      policies[name] = decision.memory;
      for (const action of decision.actions) {
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
    const world = { ...observed, subjects: new Set<string>() };
    const limited = limitHolds(world, [...wanted.values()], memory.slices, (action) =>
      limits.get((action as NamedAction).policy),
    );
    return { actions: limited.actions as NamedAction[], memory: { policies, slices: limited.slices } };
  };
}

function assign(
  observed: Observed,
  open: readonly PlacedPolicy[],
  never: Selector,
): Map<string, Set<string>> {
  const subjects = new Map(open.map(({ name }) => [name, new Set<string>()]));
  for (const process of everyProcess(observed.domains)) {
    if (isUntouchable(process) || never(process)) continue;
    const owner = open.find(({ select }) => select(process));
    if (owner !== undefined) subjects.get(owner.name)!.add(process.key);
  }
  return subjects;
}

/** @throws TypeError for what is no action: a user's policy may give anything */
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

/** What an action is about: two of one target exclude each other. */
export function targetOf(action: Action): string {
  return `${action.type} ${'process' in action ? action.process : action.domain}`;
}
