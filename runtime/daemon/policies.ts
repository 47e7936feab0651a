import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { DomschedError } from '../error.ts';
import type { RousedBy } from '../policy/alert.ts';
import { combine, type PlacedPolicy } from '../policy/combine.ts';
import { fairGroup, fairShare } from '../policy/fair-share.ts';
import type { Guarantee } from '../policy/guarantee.ts';
import { idleOnly } from '../policy/idle-only.ts';
import { io } from '../policy/io.ts';
import { priority } from '../policy/priority.ts';
import { proportionalShare } from '../policy/proportional-share.ts';
import { protect } from '../policy/protect.ts';
import { matches, type Selector, type SelectorSpec, selector } from '../policy/selector.ts';
import { shortFirst } from '../policy/short-first.ts';
import type { WaitTarget } from '../policy/wait-target.ts';
import type { Policy, ProcessView } from '../policy/world.ts';
import type { Config, PolicyConfig } from './config-schema.ts';

/**
 * Combines the policies of a configuration into one.
 * @param directory base of relative module paths
 * @throws DomschedError `config-invalid` for a module that makes no policy
 */
export async function makePolicies(
  config: Config,
  directory: string,
  onError?: (policy: string, error: unknown) => void,
): Promise<ReturnType<typeof combine>> {
  const entries: PlacedPolicy[] = [];
  const selects: MakeSelector = (specs) => selector(specs, config.fleet?.name);
  for (const [index, entry] of config.policy.entries()) {
    const maxHold = entry.maxHold ?? config.maxHold;
    const select = entry.select ?? (entry.type === 'priority' ? entry.order : []);
    const name = policyName(entry, index);
    entries.push({
      name,
      policy: await makePolicy(entry, directory, selects),
      select: selects(select as SelectorSpec[]),
      windows: entry.windows,
      ...(OWN_HOST_ONLY.has(entry.type) && { ownHostOnly: true }),
      ...(entry.type === 'priority' && {
        asks: placeAsks(
          name,
          entry.order.map((spec) => selects([spec])),
        ),
      }),
      ...rousedBy(entry, selects),
      ...(KEEPS_ACCOUNTS.has(entry.type) && { account: digest(JSON.stringify(entry)) }),
      limit:
        maxHold === false
          ? undefined
          : { maxHoldMs: maxHold * 1000, sliceMs: (entry.slice ?? config.slice) * 1000 },
    });
  }
  const never = selects(config.never as SelectorSpec[]);
  return combine(entries, never, onError, guaranteeOf(config));
}

function guaranteeOf({ guarantee, domain, slice }: Config): Guarantee {
  const found = (name: string) => domain.find((entry) => matches(entry.name, name));
  return { of: ({ name }) => (found(name) ?? { guarantee }).guarantee, sliceMs: slice * 1000 };
}

/** What a policy without a name is called. */
export function policyName({ name, type }: PolicyConfig, index: number): string {
  return name ?? `${type}-${index + 1}`;
}

/** What a subject of `priority` at this place asks of others: whether one of a place before it works. */
export function placeQuestion(policy: string, place: number): string {
  return `${policy}, place ${place + 1}`;
}

/** What each subject of `priority` asks; who has the first place waits for nobody. */
export function placeAsks(policy: string, order: readonly Selector[]) {
  return (subject: ProcessView) => {
    const place = order.findIndex((fits) => fits(subject));
    return place > 0 ? placeQuestion(policy, place) : undefined;
  };
}

/** Knows the name of this host in its fleet. */
type MakeSelector = (specs: readonly SelectorSpec[]) => Selector;

/** Every selector of a configuration. */
export function selectorsOf(config: Pick<Config, 'never' | 'policy'>): SelectorSpec[] {
  const specs: (SelectorSpec | undefined)[] = [...config.never];
  for (const policy of config.policy) {
    specs.push(...(policy.select ?? []));
    if ('order' in policy) specs.push(...policy.order);
    if ('shares' in policy) specs.push(...policy.shares);
    if ('ignore' in policy) specs.push(...(policy.ignore ?? []));
    if ('protect' in policy) specs.push(...(policy.protect ?? []));
  }
  return specs.filter((spec) => spec !== undefined);
}

/** They divide CPUs, or order those that wait for one: of a host's own. */
export const OWN_HOST_ONLY: ReadonlySet<PolicyConfig['type']> = new Set([
  'fair-share',
  'proportional-share',
  'short-first',
  'protect',
]);

/** The others decide by what happens over whole intervals. */
function rousedBy(entry: PolicyConfig, selects: MakeSelector): { readonly rousedBy?: RousedBy } {
  switch (entry.type) {
    case 'idle-only': {
      const ignored = selects(entry.ignore ?? []);
      return { rousedBy: { among: 'others', select: (process) => !ignored(process) } };
    }
    case 'priority':
      return { rousedBy: { among: 'subjects' } };
    case 'io':
      return { rousedBy: { among: 'others', ...(entry.protect && { select: selects(entry.protect) }) } };
    default:
      return {};
  }
}

/** The others get what they know of the past from the guests, as `short-first` does, or forget it within seconds. */
const KEEPS_ACCOUNTS: ReadonlySet<PolicyConfig['type']> = new Set(['fair-share', 'proportional-share']);

function digest(text: string | Buffer): string {
  return createHash('sha256').update(text).digest('hex');
}

async function makePolicy(config: PolicyConfig, directory: string, selects: MakeSelector): Promise<Policy> {
  switch (config.type) {
    case 'idle-only':
      return idleOnly(
        given({
          threshold: config.threshold,
          quietMs: ms(config.quiet),
          ignore: config.ignore && selects(config.ignore),
        }),
      ) as Policy;
    case 'priority':
      return priority({
        order: config.order.map((spec) => selects([spec])),
        ...given({ threshold: config.threshold, nice: config.nice, weight: config.weight }),
      }) as Policy;
    case 'fair-share':
      return fairShare({
        cpus: config.cpus ?? availableParallelism(),
        ...given({ by: config.by, leadMs: ms(config.lead), threshold: config.threshold }),
      });
    case 'proportional-share':
      return proportionalShare({
        shares: config.shares.map(({ weight, ...spec }) => ({ select: selects([spec]), weight })),
        cpus: config.cpus ?? availableParallelism(),
        ...given({
          group: config.by && fairGroup(config.by),
          leadMs: ms(config.lead),
          threshold: config.threshold,
        }),
      }) as Policy;
    case 'short-first':
      return shortFirst(
        given({
          limitsMs: config.limits?.map((limit) => limit * 1000).sort((a, b) => a - b),
          nice: config.nice,
          weight: config.weight,
          threshold: config.threshold,
        }),
      ) as Policy;
    case 'io':
      return io(
        given({
          protect: config.protect && selects(config.protect),
          windowMs: ms(config.window),
          duty: config.duty,
          periodMs: ms(config.period),
        }),
      ) as Policy;
    case 'protect':
      return protect({
        protect: selects(config.protect),
        target: targetOf(config),
        ...given({ windowMs: ms(config.window), nice: config.nice }),
      }) as Policy;
    case 'module':
      return loadPolicy(path.resolve(directory, config.module), config.options);
  }
}

/** The schema lets one of the three through. */
function targetOf({ wait, share, p99 }: PolicyConfig & { readonly type: 'protect' }): WaitTarget {
  if (share !== undefined) return { share };
  return p99 === undefined ? { waitMs: wait! * 1000 } : { p99Ms: p99 * 1000 };
}

/**
 * Loads a user's policy: the module's default export takes the options and returns the policy. Node caches modules by
 * address, so the address contains a hash of the file and an edited file is loaded again. Modules that it imports are
 * not.
 */
async function loadPolicy(file: string, options: Readonly<Record<string, unknown>>): Promise<Policy> {
  const refuse = (why: string, cause?: unknown) =>
    new DomschedError('config-invalid', `policy module ${file}: ${why}`, { file }, { cause });
  let made: unknown;
  try {
    const url = pathToFileURL(file);
    url.search = digest(await readFile(file));
    const { default: make } = (await import(url.href)) as { default?: unknown };
    if (typeof make !== 'function') throw refuse('its default export is no function that makes a policy');
    made = await make(options);
  } catch (cause) {
    if (cause instanceof DomschedError) throw cause;
    throw refuse(cause instanceof Error ? cause.message : String(cause), cause);
  }
  if (typeof made !== 'function') throw refuse('what its default export makes is no function');
  return made as Policy;
}

type Given<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** Removes undefined options. */
function given<T extends object>(options: T): Given<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Given<T>;
}

function ms(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}
