import path from 'node:path';
import type { Logger } from 'pino';
import type { Fleet } from '../fleet/fleet.ts';
import { connectAll } from '../hypervisor/connect.ts';
import type { Config } from './config-schema.ts';
import type { Settings } from './daemon.ts';
import { makeObservers } from './observers.ts';
import { makePolicies, selectorsOf } from './policies.ts';

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
  const fleetRoom = config.fleet && (await import('../fleet/fleet.ts'));
  fleetRoom?.checkFleet(config.fleet!);
  const hosts = same ? before.settings.hosts : await connectAll(config.connect);
  // Last, when nothing else can fail: the old observers must first give up their ports and files.
  await Promise.allSettled((before?.settings.observers ?? []).map((observer) => observer.close()));
  const observers = await makeObservers(config, log);
  const fleet = await makeFleet(config, log, fleetRoom, before);
  return {
    intervalMs: config.interval * 1000,
    idleIntervalMs: (config.idleInterval ?? config.interval * IDLE_FACTOR) * 1000,
    discoveryMs: config.discovery * 1000,
    techniques: config.technique === 'auto' ? undefined : [config.technique],
    decide,
    origins: asksForOrigins(config),
    hosts,
    observers,
    ...(fleet && { fleet }),
  };
}

/** The present fleet goes on if its part of the configuration is the same. Without one nothing of it is loaded. */
async function makeFleet(
  config: Config,
  log: Logger,
  room: typeof import('../fleet/fleet.ts') | undefined,
  before?: { readonly config: Config; readonly settings: Settings },
): Promise<Fleet | undefined> {
  const old = before?.settings.fleet;
  const isSame = JSON.stringify(before?.config.fleet) === JSON.stringify(config.fleet);
  // First: what it says at its end must not be taken for a word of the new one.
  if (!isSame) await old?.close();
  if (config.fleet === undefined || room === undefined) return undefined;
  const fleet = (isSame && old) || new room.Fleet(config.fleet, log);
  const selectors = selectorsOf(config);
  const thresholds = config.policy.flatMap((policy) =>
    'threshold' in policy && policy.threshold !== undefined ? [policy.threshold] : [],
  );
  fleet.watch({ selectors, thresholds });
  return fleet;
}

/** Reading users, groups and command lines is slow: we do it only if a selector uses them. */
function asksForOrigins(config: Config): boolean {
  if (config.policy.some(({ type }) => type === 'module')) return true;
  if (config.policy.some((policy) => 'by' in policy && policy.by === 'user')) return true;
  return selectorsOf(config).some(
    (spec) => spec.user !== undefined || spec.cgroup !== undefined || spec.command !== undefined,
  );
}
