import { HOST_NAME } from '../fleet/config.ts';
import { type Minded, QUESTION_MS, type WorkQuestion } from '../fleet/hearing.ts';
import { DEFAULT_THRESHOLD } from '../policy/busy.ts';
import { type SelectorSpec, selector } from '../policy/selector.ts';
import type { PolicyConfig } from './config-schema.ts';
import { OWN_HOST_ONLY } from './policies.ts';

/** Of more hosts than this we hear all: the server looks each word up among the subscriptions. */
const MOST_NAMED = 64;

/**
 * What other hosts' activity can change a decision of these policies: that of hosts that they name, and of any host until
 * enough others are known to be at work for those that only ask whether somebody is.
 * @returns nothing if it may be any host's, or if no policy sees other hosts
 */
export function mindedHosts(policies: readonly PolicyConfig[]): Minded {
  const names = new Set<string>();
  const questions: WorkQuestion[] = [];
  for (const policy of policies) {
    const specs = seenElsewhere(policy);
    const named = specs && hostsOf(specs);
    const question = questionOf(policy);
    if (named !== undefined) for (const name of named) names.add(name);
    else if (question !== undefined) questions.push(question);
    else return {};
  }
  if (names.size > MOST_NAMED) return {};
  const hosts = names.size > 0 ? { hosts: [...names].sort() } : {};
  return questions.length > 0 ? { ...hosts, questions } : hosts;
}

/** By which selectors a policy sees processes elsewhere; undefined if it sees all. */
function seenElsewhere(policy: PolicyConfig): readonly SelectorSpec[] | undefined {
  if (OWN_HOST_ONLY.has(policy.type)) return [];
  if (policy.type === 'priority') return policy.order;
  return policy.type === 'io' ? policy.protect : undefined;
}

/** The full names in them; undefined if one of them may mean any host. */
function hostsOf(specs: readonly SelectorSpec[]): readonly string[] | undefined {
  const names = specs.flatMap(({ host = '*' }) => host);
  return names.length <= MOST_NAMED && names.every((name) => HOST_NAME.test(name)) ? names : undefined;
}

/**
 * Whether a process elsewhere is enough for a policy to hold whom it selects. One of which we cannot be sure, since
 * another policy may own it, is not.
 */
function questionOf(policy: PolicyConfig): WorkQuestion | undefined {
  if (policy.type !== 'idle-only' && policy.type !== 'io') return undefined;
  const isSubject = selector(policy.select ?? []);
  if (policy.type === 'io') {
    const isProtected = policy.protect && selector(policy.protect);
    return (process) => process.ranNs > 0 && !isSubject(process) && (isProtected?.(process) ?? true);
  }
  const isIgnored = selector(policy.ignore ?? []);
  const enoughNs = (policy.threshold ?? DEFAULT_THRESHOLD) * QUESTION_MS * 1e6;
  return (process) =>
    ((process.ranNs > 0 && process.ranNs >= enoughNs) || process.state === 'ready') &&
    !isSubject(process) &&
    !isIgnored(process);
}
