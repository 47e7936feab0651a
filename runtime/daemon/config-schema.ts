import { z } from 'zod';
import { brokerPlace } from '../broker/place.ts';
import { FLEET } from '../fleet/config.ts';
import { DAYS } from '../policy/window.ts';
import { OBSERVERS } from './observers-config.ts';

const SECOND = 1;
const DAY = 24 * 60 * 60;

const patterns = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]);
const numbers = (schema: z.ZodNumber) => z.union([schema, z.array(schema).min(1)]);
const seconds = (least: number, most: number) => z.number().min(least).max(most);
const nice = z.number().int().min(-20).max(19);
const weight = z.number().int().min(1).max(65_535);
const part = z.number().min(0).max(1);
const cpus = z.number().min(0).max(8192);

export const SELECTOR = z
  .strictObject({
    host: patterns,
    domain: patterns,
    comm: patterns,
    pid: numbers(z.number().int().positive()),
    cgroup: patterns,
    user: numbers(z.number().int().nonnegative()),
    command: patterns,
  })
  .partial();

const selectors = z.array(SELECTOR).min(1);

const time = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, 'a time looks like 22:30');
const window = z.strictObject({ from: time, to: time, days: z.array(z.enum(DAYS)).min(1).optional() });

/** Keys that every policy has. */
const common = {
  /** Name of the policy in ticks and logs. */
  name: z
    .string()
    .min(1)
    .max(64)
    .refine((name) => !name.startsWith('fleet/'), 'names with fleet/ are those of the fleet’s policies')
    .optional(),
  select: selectors,
  windows: z.array(window).default([]),
  maxHold: z.union([seconds(SECOND, DAY), z.literal(false)]).optional(),
  slice: seconds(0.01, DAY).optional(),
};

export const POLICY = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('idle-only'),
    ...common,
    threshold: part.optional(),
    quiet: seconds(0, DAY).optional(),
    ignore: selectors.optional(),
  }),
  z.strictObject({
    type: z.literal('priority'),
    ...common,
    /** The first selector is the most important; every process that a selector matches is a subject. */
    select: selectors.optional(),
    order: z.array(SELECTOR).min(1),
    threshold: part.optional(),
    nice: z.tuple([nice, nice]).optional(),
    weight: z.tuple([weight, weight]).optional(),
  }),
  z.strictObject({
    type: z.literal('fair-share'),
    ...common,
    by: z.enum(['process', 'domain', 'user']).optional(),
    cpus: z.number().int().min(1).max(8192).optional(),
    lead: seconds(0.001, DAY).optional(),
    threshold: part.optional(),
  }),
  z.strictObject({
    type: z.literal('proportional-share'),
    ...common,
    shares: z.array(SELECTOR.extend({ weight: z.number().positive() })).min(1),
    by: z.enum(['process', 'domain', 'user']).optional(),
    cpus: z.number().int().min(1).max(8192).optional(),
    lead: seconds(0.001, DAY).optional(),
    threshold: part.optional(),
  }),
  z.strictObject({
    type: z.literal('short-first'),
    ...common,
    limits: z.array(seconds(0.001, DAY)).min(1).optional(),
    nice: z.tuple([nice, nice]).optional(),
    weight: z.tuple([weight, weight]).optional(),
    threshold: part.optional(),
  }),
  z.strictObject({
    type: z.literal('io'),
    ...common,
    protect: selectors.optional(),
    window: seconds(0, DAY).optional(),
    duty: part.optional(),
    period: seconds(0.01, DAY).optional(),
  }),
  z.strictObject({
    type: z.literal('protect'),
    ...common,
    protect: selectors,
    /** The target, in one of three ways: see `WaitTarget`. */
    wait: seconds(0.0001, DAY).optional(),
    share: z.number().min(0.01).max(0.999).optional(),
    p99: seconds(0.0001, 10).optional(),
    window: seconds(0.1, 60).optional(),
    nice: nice.optional(),
  }),
  z.strictObject({
    type: z.literal('module'),
    ...common,
    /**
     * File of a module whose default export makes a policy. A relative path starts at the configuration's directory.
     */
    module: z.string().min(1),
    /** Passed to the policy. */
    options: z.record(z.string(), z.unknown()).default({}),
  }),
]);

interface WithPolicies {
  readonly policy: readonly z.output<typeof POLICY>[];
}

/** What no policy shows by itself, or no key of it. */
export function checkPolicies(config: WithPolicies, context: z.RefinementCtx): void {
  distinctNames(config, context);
  oneTarget(config, context);
}

function oneTarget({ policy }: WithPolicies, context: z.RefinementCtx): void {
  for (const [index, entry] of policy.entries()) {
    if (entry.type !== 'protect') continue;
    const given = (['wait', 'share', 'p99'] as const).filter((key) => entry[key] !== undefined);
    if (given.length === 1) continue;
    const message =
      given.length === 0
        ? 'give the target: wait, share or p99'
        : `give one target: ${given.slice(0, -1).join(', ')} or ${given.at(-1)}`;
    context.addIssue({ code: 'custom', path: ['policy', index, given[0] ?? 'wait'], message });
  }
}

/** Two policies of one name could not be told apart. */
function distinctNames({ policy }: WithPolicies, context: z.RefinementCtx): void {
  const names = new Map<string, number>();
  for (const [index, entry] of policy.entries()) {
    const name = entry.name ?? `${entry.type}-${index + 1}`;
    const first = names.get(name);
    if (first !== undefined) {
      const message = `policy ${first + 1} is called ${name} too`;
      context.addIssue({ code: 'custom', path: ['policy', index, 'name'], message });
    }
    names.set(name, index);
  }
}

/** Machines that a broker can open. */
const isForBroker = (value: string) => brokerPlace(value) !== undefined;

/** What does not work without root's rights, or should not. */
function checkSplit(
  config: { split: boolean; connect: readonly string[]; fleet?: unknown },
  context: z.RefinementCtx,
): void {
  if (!config.split) return;
  const refuse = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message });
  if (config.connect.length === 0 || !config.connect.every(isForBroker)) {
    refuse(
      'connect',
      'with split, machines are reached by their processes and by QMP alone, without qtest and gdb: write connect = ["qemu:", "pid:"]',
    );
  }
  if (config.fleet !== undefined) {
    const why = 'whoever has taken over the reader could speak for this host to all others';
    refuse('fleet', `with split, there is no fleet yet, because ${why}: leave one of the two out`);
  }
}

export const CONFIG = z
  .strictObject({
    interval: seconds(0.01, 60).default(0.5),
    idleInterval: seconds(0.01, 600).optional(),
    /** Time between two looks at who is on a CPU, in between. */
    sentinel: z.union([seconds(0.001, 1), z.literal(false)]).default(0.005),
    discovery: seconds(0.1, 600).default(2),
    connect: z.array(z.string().min(1)).default([]),
    /** A broker keeps root's rights, and whoever reads guests has none. */
    split: z.boolean().default(false),
    technique: z.enum(['auto', 'splice', 'state', 'park']).default('auto'),
    maxHold: z.union([seconds(SECOND, DAY), z.literal(false)]).default(60),
    slice: seconds(0.01, DAY).default(1),
    /** CPUs that a domain keeps for those of its processes that policies hold; 0 for nothing. */
    guarantee: cpus.default(0.1),
    /** Exceptions; the first one that matches a domain's name counts. */
    domain: z.array(z.strictObject({ name: patterns, guarantee: cpus })).default([]),
    never: z.array(SELECTOR).default([]),
    log: z
      .strictObject({
        level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info'),
        file: z.string().startsWith('/').optional(),
      })
      .prefault({}),
    policy: z.array(POLICY).default([]),
    fleet: FLEET.optional(),
    ...OBSERVERS,
  })
  .superRefine(checkPolicies)
  .superRefine(checkSplit);

export type Config = z.output<typeof CONFIG>;
export type PolicyConfig = z.output<typeof POLICY>;
