import { HOST_NAME } from '../fleet/config.ts';
import type { SelectorSpec } from '../policy/selector.ts';
import type { PolicyConfig } from './config-schema.ts';
import { OWN_HOST_ONLY } from './policies.ts';

/** Of more hosts than this we hear all: the server looks each word up among the subscriptions. */
const MOST_NAMED = 64;

/**
 * Names of the other hosts whose activity can change a decision of these policies.
 * @returns undefined if it may be any host's, or if no policy sees other hosts
 */
export function mindedHosts(policies: readonly PolicyConfig[]): readonly string[] | undefined {
  const names = new Set<string>();
  for (const policy of policies) {
    const specs = seenElsewhere(policy);
    if (specs === undefined) return undefined;
    for (const { host = '*' } of specs) for (const name of [host].flat()) names.add(name);
  }
  const isNamed = [...names].every((name) => HOST_NAME.test(name));
  return isNamed && names.size > 0 && names.size <= MOST_NAMED ? [...names].sort() : undefined;
}

/** By which selectors a policy sees processes elsewhere; undefined if it sees all. */
function seenElsewhere(policy: PolicyConfig): readonly SelectorSpec[] | undefined {
  if (OWN_HOST_ONLY.has(policy.type)) return [];
  if (policy.type === 'priority') return policy.order;
  return policy.type === 'io' ? policy.protect : undefined;
}
