import { DomschedError } from '../error.ts';
import { ControlClient } from './control-client.ts';

/**
 * Has the daemon do something, where one runs: nobody else reaches the machines that it is attached to.
 * @returns undefined where none runs, or it does not have the domain
 * @throws DomschedError what the daemon answers
 */
export async function askDaemon<T>(op: string, parameters: object): Promise<T | undefined> {
  const client = await ControlClient.connect();
  if (client === undefined) return undefined;
  using daemon = client;
  try {
    return await daemon.request<T>(op, parameters);
  } catch (error) {
    if (error instanceof DomschedError && error.code === 'domain-not-found') return undefined;
    throw error;
  }
}
