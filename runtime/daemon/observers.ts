import type { Logger } from 'pino';
import type { ObserverConfig } from './observers-config.ts';
import type { Observer } from './report.ts';

export interface ObserverContext {
  readonly log: Logger;
  /** Of domsched. */
  readonly version: string;
}

/** The observers that the configuration asks for. */
export async function makeObservers(_config: ObserverConfig, _context: ObserverContext): Promise<Observer[]> {
  return [];
}
