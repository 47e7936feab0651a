import path from 'node:path';
import type { Logger } from 'pino';
import { connectAll } from '../hypervisor/connect.ts';
import type { SelectorSpec } from '../policy/selector.ts';
import type { Config } from './config-schema.ts';
import type { Settings } from './daemon.ts';
import { makeObservers } from './observers.ts';
import { makePolicies } from './policies.ts';

/** The idle interval is this many ordinary intervals. */
const IDLE_FACTOR = 4;

/**
 * Turns a configuration into the daemon's settings.
 * @param file the configuration's path; relative paths in it start at its directory
 * @param before present settings; unchanged connections are reused
 * @throws DomschedError `config-invalid`, `usage`; what an observer throws
 */
export async function makeSettings(
  config: Config,
  file: string,
  log: Logger,
  before?: { readonly config: Config; readonly settings: Settings },
): Promise<Settings> {
  const decide = await makePolicies(config, path.dirname(path.resolve(file)), (policy, error) => {
    log.error({ policy, err: error }, 'the policy failed: nothing is done for it');
  });
  const same =
    before !== undefined && JSON.stringify(before.config.connect) === JSON.stringify(config.connect);
  const hosts = same ? before.settings.hosts : await connectAll(config.connect);
  // Last, when nothing else can fail: the old observers must first give up their ports and files.
  await Promise.allSettled((before?.settings.observers ?? []).map((observer) => observer.close()));
  return {
    intervalMs: config.interval * 1000,
    idleIntervalMs: (config.idleInterval ?? config.interval * IDLE_FACTOR) * 1000,
    discoveryMs: config.discovery * 1000,
    techniques: config.technique === 'auto' ? undefined : [config.technique],
    decide,
    origins: asksForOrigins(config),
    hosts,
    observers: await makeObservers(config, log),
  };
}

/** Reading users, groups and command lines is slow: we do it only if a selector uses them. */
function asksForOrigins(config: Config): boolean {
  if (config.policy.some(({ type }) => type === 'module')) return true;
  const specs: (SelectorSpec | undefined)[] = [...config.never];
  for (const policy of config.policy) {
    specs.push(...(policy.select ?? []));
    if ('order' in policy) specs.push(...policy.order);
    if ('shares' in policy) specs.push(...policy.shares);
    if ('ignore' in policy) specs.push(...(policy.ignore ?? []));
    if ('protect' in policy) specs.push(...(policy.protect ?? []));
    if ('by' in policy && policy.by === 'user') return true;
  }
  return specs.some(
    (spec) => spec?.user !== undefined || spec?.cgroup !== undefined || spec?.command !== undefined,
  );
}
