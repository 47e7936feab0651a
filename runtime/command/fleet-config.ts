import { readConfig } from '../daemon/config.ts';
import { DomschedError } from '../error.ts';
import type { FleetConfig } from '../fleet/config.ts';

/** What puts a host into a fleet. */
export const JOIN = 'add [fleet] with servers = ["nats://SERVER:4222"]';

/**
 * Says how to reach the fleet.
 * @throws DomschedError `usage` if the configuration has no fleet; `config-invalid` if there is none
 */
export async function fleetConfig(file: string): Promise<FleetConfig> {
  const { fleet } = await readConfig(file);
  if (fleet === undefined) throw new DomschedError('usage', `${file} has no [fleet]: ${JOIN}`, { file });
  return fleet;
}
