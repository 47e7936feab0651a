import path from 'node:path';
import type { Logger } from 'pino';
import type { StoredPolicy } from '../fleet/stored-policy.ts';
import { haveLayoutsFrom } from '../guest/learn/elsewhere.ts';
import { connectAll, type Hosts } from '../hypervisor/connect.ts';
import type { Config } from './config-schema.ts';
import type { Settings } from './daemon.ts';
import { parseFleetPolicy, withFleetPolicy } from './fleet-policy.ts';
import { mindedHosts } from './minded-hosts.ts';
import { makeObservers } from './observers.ts';
import { makePolicies, selectorsOf } from './policies.ts';

/** The idle interval is this many ordinary intervals. */
const IDLE_FACTOR = 4;

/**
 * Turns a configuration into the daemon's settings.
 * @param file the configuration's path; relative paths in it start at its directory
 * @param before present settings; unchanged connections are reused
 * @param brokered hosts that a broker opens, instead of connections of our own; present observers then stay, because
 *   nobody could open their sockets and files again
 * @throws DomschedError `config-invalid`, `usage`; what an observer throws
 */
export async function makeSettings(
  config: Config,
  file: string,
  log: Logger,
  before?: { readonly config: Config; readonly settings: Settings },
  brokered?: Hosts,
): Promise<Settings> {
  const room = config.fleet && (await import('../fleet/fleet.ts'));
  room?.checkFleet(config.fleet!);
  const old = isSameFleet(config, before?.config) ? before?.settings.fleet : undefined;
  const stored = old ? old.policy : room?.cachedPolicy(config.fleet!);
  const decisions = await makeDecisions(config, file, log, stored);
  const same =
    before !== undefined && JSON.stringify(before.config.connect) === JSON.stringify(config.connect);
  const hosts = brokered ?? (same ? before.settings.hosts : await connectAll(config.connect));
  const observers = brokered && before ? before.settings.observers : await observersOf(config, log, before);
  // First: what it says at its end must not be taken for a word of the new one.
  if (old === undefined) await before?.settings.fleet?.close();
  const fleet = old ?? (room && new room.Fleet(config.fleet!, log));
  fleet?.watch(decisions.interest);
  haveLayoutsFrom(fleet?.layouts);
  return {
    intervalMs: config.interval * 1000,
    idleIntervalMs: (config.idleInterval ?? config.interval * IDLE_FACTOR) * 1000,
    sentinelMs: config.sentinel === false ? undefined : config.sentinel * 1000,
    discoveryMs: config.discovery * 1000,
    techniques: config.technique === 'auto' ? undefined : [config.technique],
    ...decisions,
    hosts,
    observers,
    ...(fleet && { fleet }),
  };
}

/** Last, when nothing else can fail: the old observers must first give up their ports and files. */
async function observersOf(
  config: Config,
  log: Logger,
  before: { readonly settings: Settings } | undefined,
): Promise<Settings['observers']> {
  await Promise.allSettled((before?.settings.observers ?? []).map((observer) => observer.close()));
  return makeObservers(config, log, config.fleet?.name);
}

/**
 * The same settings with another policy of the fleet.
 * @throws DomschedError `config-invalid` if this host cannot use it
 */
export async function withStoredPolicy(
  settings: Settings,
  config: Config,
  file: string,
  log: Logger,
  stored: StoredPolicy,
): Promise<Settings> {
  parseFleetPolicy(stored.policy, revisionName(stored));
  const decisions = await makeDecisions(config, file, log, stored);
  settings.fleet?.watch(decisions.interest);
  return { ...settings, ...decisions };
}

/** What follows from the policies of a configuration, and the fleet's if there is one that this host can use. */
async function makeDecisions(config: Config, file: string, log: Logger, stored: StoredPolicy | undefined) {
  const whole = stored === undefined ? config : withStored(config, log, stored);
  const decide = await makePolicies(whole, path.dirname(path.resolve(file)), (policy, error) => {
    log.error({ policy, err: error }, 'the policy failed: nothing is done for it');
  });
  const thresholds = whole.policy.flatMap((policy) =>
    'threshold' in policy && policy.threshold !== undefined ? [policy.threshold] : [],
  );
  const interest = { selectors: selectorsOf(whole), thresholds, ...mindedHosts(whole) };
  return { decide, origins: asksForOrigins(whole), interest };
}

function withStored(config: Config, log: Logger, stored: StoredPolicy): Config {
  try {
    return withFleetPolicy(config, parseFleetPolicy(stored.policy, revisionName(stored)));
  } catch (error) {
    log.error({ err: error }, 'the policy of the fleet that was in force before cannot be used');
    return config;
  }
}

function revisionName({ revision }: StoredPolicy): string {
  return `revision ${revision} of the fleet's policy`;
}

function isSameFleet(a: Config, b: Config | undefined): boolean {
  return JSON.stringify(a.fleet) === JSON.stringify(b?.fleet);
}

/** Reading users, groups and command lines is slow: we do it only if a selector uses them. */
function asksForOrigins(config: Config): boolean {
  if (config.policy.some(({ type }) => type === 'module')) return true;
  if (config.policy.some((policy) => 'by' in policy && policy.by === 'user')) return true;
  return selectorsOf(config).some(
    (spec) => spec.user !== undefined || spec.cgroup !== undefined || spec.command !== undefined,
  );
}
