import { z } from 'zod';
import { DomschedError } from '../error.ts';
import { parseToml } from './config.ts';
import { type Config, checkPolicies, POLICY, SELECTOR } from './config-schema.ts';

/** A module is code of its host: no other one sends it. */
const FLEET_POLICY = z
  .strictObject({ never: z.array(SELECTOR).default([]), policy: z.array(POLICY).default([]) })
  .superRefine(checkPolicies)
  .superRefine(({ policy }, context) => {
    for (const [index, { type }] of policy.entries())
      if (type === 'module') {
        const message = 'no module: code is not passed from host to host';
        context.addIssue({ code: 'custom', path: ['policy', index, 'type'], message });
      }
  });

export type FleetPolicy = z.output<typeof FLEET_POLICY>;

/**
 * Reads the fleet's policy.
 * @param name of it, for messages
 * @throws DomschedError `config-invalid` with every problem and its place in `details.problems`
 */
export function parseFleetPolicy(text: string, name: string): FleetPolicy {
  return parseToml(FLEET_POLICY, text, name);
}

/** What this version cannot do of a policy. */
export function problemsOf(text: string): readonly string[] {
  try {
    parseFleetPolicy(text, 'the policy');
    return [];
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return (error.details.problems as readonly string[] | undefined) ?? [error.message];
  }
}

/**
 * A configuration with the fleet's policy behind its own. This host's limits go first: what it never touches, how long it
 * holds at most, and how long a process then runs at least.
 */
export function withFleetPolicy(config: Config, { never, policy }: FleetPolicy): Config {
  return {
    ...config,
    never: [...config.never, ...never],
    policy: [
      ...config.policy,
      ...policy.map((entry, index) => ({
        ...entry,
        name: `fleet/${entry.name ?? `${entry.type}-${index + 1}`}`,
        maxHold: least(config.maxHold, entry.maxHold ?? config.maxHold),
        slice: Math.max(config.slice, entry.slice ?? config.slice),
      })),
    ],
  };
}

function least(a: number | false, b: number | false): number | false {
  if (a === false) return b;
  return b === false ? a : Math.min(a, b);
}
