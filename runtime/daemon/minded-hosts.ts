import { HOST_NAME } from '../fleet/config.ts';
import { type Minded, QUESTION_MS, type WorkQuestion } from '../fleet/hearing.ts';
import { DEFAULT_THRESHOLD } from '../policy/busy.ts';
import { type SelectorSpec, selector } from '../policy/selector.ts';
import type { ProcessView } from '../policy/world.ts';
import type { Config, PolicyConfig } from './config-schema.ts';
import { OWN_HOST_ONLY, placeQuestion, policyName } from './policies.ts';

/** Of more hosts than this we hear all: the server looks each word up among the subscriptions. */
const MOST_NAMED = 64;

type PriorityConfig = PolicyConfig & { readonly type: 'priority' };

/** What one policy may have to know of other hosts: of these, and of any until each question is answered. */
interface HostNeeds {
  readonly hosts: readonly string[];
  readonly questions: readonly WorkQuestion[];
}

/**
 * What other hosts' activity can change a decision of these policies: that of hosts that they name, and of any host until
 * enough others are known to be at work for those that only ask whether somebody is.
 * @returns nothing if it may be any host's, or if no policy sees other hosts
 */
export function mindedHosts({ policy: policies, never }: Pick<Config, 'policy' | 'never'>): Minded {
  const names = new Set<string>();
  const questions: WorkQuestion[] = [];
  const others: SelectorSpec[] = [...never];
  for (const [index, policy] of policies.entries()) {
    const needs = needsOf(policy, policyName(policy, index), others);
    if (needs === undefined) return {};
    for (const name of needs.hosts) names.add(name);
    questions.push(...needs.questions);
    others.push(...(policy.select ?? (policy.type === 'priority' ? policy.order : [])));
  }
  if (names.size > MOST_NAMED) return {};
  const hosts = names.size > 0 ? { hosts: [...names].sort() } : {};
  return questions.length > 0 ? { ...hosts, questions } : hosts;
}

/**
 * @param others by which a process may be another policy's, or nobody's
 * @returns undefined if it may have to know everything of any host
 */
function needsOf(policy: PolicyConfig, name: string, others: readonly SelectorSpec[]): HostNeeds | undefined {
  if (OWN_HOST_ONLY.has(policy.type)) return { hosts: [], questions: [] };
  if (policy.type === 'priority') return needsOfPlaces(policy, name, others);
  if (policy.type !== 'idle-only' && policy.type !== 'io') return undefined;
  const hosts = policy.type === 'io' ? policy.protect && hostsOf(policy.protect) : undefined;
  if (hosts !== undefined) return { hosts, questions: [] };
  return { hosts: [], questions: [{ name, isAnsweredBy: answerTo(policy) }] };
}

/** The full names in them; undefined if one of them may mean any host. */
function hostsOf(specs: readonly SelectorSpec[]): readonly string[] | undefined {
  const names = specs.flatMap(({ host = '*' }) => host);
  return names.length <= MOST_NAMED && names.every((name) => HOST_NAME.test(name)) ? names : undefined;
}

/**
 * Whoever has a place waits for all of the places before it: of hosts that these name, or of any. Nobody waits for the last.
 */
function needsOfPlaces(
  { order, ...policy }: PriorityConfig,
  name: string,
  others: readonly SelectorSpec[],
): HostNeeds {
  let hosts: readonly string[] = [];
  const questions: WorkQuestion[] = [];
  const isBusy = busyAt(policy.threshold);
  const isSubject = selector(policy.select ?? order);
  const isOthers = selector(others);
  for (let place = 1; place < order.length; place++) {
    const named = hostsOf(order.slice(0, place));
    if (named !== undefined) {
      hosts = named;
      continue;
    }
    const isBefore = selector(order.slice(0, place));
    questions.push({
      name: placeQuestion(name, place),
      isAnsweredBy: (process) =>
        isBusy(process) && process.pid > 1 && isBefore(process) && isSubject(process) && !isOthers(process),
    });
  }
  return { hosts, questions };
}

/**
 * Whether a process elsewhere is enough for a policy to hold whom it selects. One of which we cannot be sure, since
 * another policy may own it, is not.
 */
function answerTo(
  policy: PolicyConfig & { readonly type: 'idle-only' | 'io' },
): WorkQuestion['isAnsweredBy'] {
  const isSubject = selector(policy.select ?? []);
  if (policy.type === 'io') {
    const isProtected = policy.protect && selector(policy.protect);
    return (process) => process.ranNs > 0 && !isSubject(process) && (isProtected?.(process) ?? true);
  }
  const isIgnored = selector(policy.ignore ?? []);
  const isBusy = busyAt(policy.threshold);
  return (process) => isBusy(process) && !isSubject(process) && !isIgnored(process);
}

function busyAt(threshold = DEFAULT_THRESHOLD): WorkQuestion['isAnsweredBy'] {
  const enoughNs = threshold * QUESTION_MS * 1e6;
  return ({ ranNs, state }: ProcessView) => (ranNs > 0 && ranNs >= enoughNs) || state === 'ready';
}
