import type { CredibleDomain } from './credible.ts';
import type { Action, DomainView, Observed, ProcessView } from './world.ts';

/** What each domain keeps for those of its processes that policies hold. */
export interface Guarantee {
  /** CPUs, 0 for nothing. */
  readonly of: (domain: DomainView) => number;
  /** How much CPU time is saved up for one slice, in ms. */
  readonly sliceMs: number;
}

/** The account of a domain. */
export interface GuaranteeMemory {
  /** CPU time that is owed to its held processes, in ms; negative if they had more. */
  readonly owedMs: number;
  /** They run now. */
  readonly slice: boolean;
  /** Keys of those that it is for: a policy that changes its mind at every tick does not change what they are owed. */
  readonly members: readonly string[];
}

/** A slice in which others of the guest or the host take the CPU ends after so many times its length. */
const LONGEST_SLICE = 8;
/** Less CPU time than this part of a CPU is no sign that a process wants it. */
const WANTS = 0.01;

/**
 * Lets the processes of a domain that policies hold run for a slice whenever what their domain is guaranteed has been
 * saved up, and until they have had it: nobody's activity takes it from them. Never holds anybody.
 *
 * CPU time that the host saw and no process claims counts as theirs, so a guest that hides what they use wins nothing.
 * Those that want no CPU in their slice lose it.
 * @returns the actions, with a `run` instead of each hold that a guarantee ends
 */
export function keepGuarantees<A extends Action>(
  { elapsedMs }: Pick<Observed, 'elapsedMs'>,
  domains: readonly CredibleDomain[],
  actions: readonly A[],
  before: Readonly<Record<string, GuaranteeMemory>>,
  guarantee: Guarantee,
): { actions: A[]; accounts: Record<string, GuaranteeMemory> } {
  const accounts: Record<string, GuaranteeMemory> = {};
  const reasons = new Map<string, { run: boolean; reason: string }>();
  const held = new Set(actions.flatMap((action) => (action.type === 'hold' ? [action.process] : [])));
  for (const one of domains) {
    const { domain } = one;
    const cpus = guarantee.of(domain);
    if (cpus <= 0) continue;
    const account = next(one, held, elapsedMs, before[domain.id], cpus, guarantee.sliceMs);
    if (account === undefined) continue;
    accounts[domain.id] = account;
    const reason = `its domain is guaranteed ${Math.round(cpus * 100)} % of a CPU`;
    for (const key of account.members) reasons.set(key, { run: account.slice, reason });
  }
  return {
    actions: actions.map((action) => {
      const found = action.type === 'hold' ? reasons.get(action.process) : undefined;
      if (found === undefined) return action;
      if (found.run) return { ...action, type: 'run', reason: found.reason };
      return { ...action, reason: `${action.reason}; ${found.reason}` };
    }),
    accounts,
  };
}

/** @returns undefined if nobody is to be held and nothing is owed to anybody */
function next(
  { domain, unclaimedNs }: CredibleDomain,
  held: ReadonlySet<string>,
  elapsedMs: number,
  before: GuaranteeMemory | undefined,
  cpus: number,
  sliceMs: number,
): GuaranteeMemory | undefined {
  const wanted = domain.processes.filter(({ key }) => held.has(key));
  const remembered = new Set(before?.members);
  const members = domain.processes.filter(({ key }) => held.has(key) || remembered.has(key));
  const keys = members.map(({ key }) => key);
  if (before === undefined)
    return wanted.length === 0 ? undefined : { owedMs: 0, slice: false, members: keys };
  const hadMs = whatTheyHad(members, elapsedMs, unclaimedNs);
  const owedMs = clamp(before.owedMs + cpus * elapsedMs - hadMs, -sliceMs, 2 * sliceMs);
  if (wanted.length === 0 && owedMs <= 0) return undefined;
  return { owedMs, slice: before.slice ? owedMs > 0 : owedMs >= sliceMs, members: keys };
}

function whatTheyHad(members: readonly ProcessView[], elapsedMs: number, unclaimedNs: number): number {
  const free = members.filter(({ state }) => state !== 'held');
  const ranMs = members.reduce((sum, { ranNs }) => sum + ranNs, 0) / 1e6;
  if (free.length === 0) return ranMs;
  const isWanted =
    ranMs >= WANTS * elapsedMs || free.some(({ state }) => state === 'running' || state === 'ready');
  return Math.max(ranMs + unclaimedNs / 1e6, isWanted ? elapsedMs / LONGEST_SLICE : elapsedMs);
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}
