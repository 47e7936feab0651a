import type { TickReport } from '../daemon/report.ts';
import { connectAll } from '../hypervisor/connect.ts';
import { knownKernels } from '../layout/registry.ts';
import type { TraceHeader } from '../trace/line.ts';
import { Sampler } from './sampler.ts';
import { ticks } from './ticks.ts';

/** Reports, one per tick, until the signal. */
export interface Feed extends AsyncDisposable {
  readonly source: TraceHeader['source'];
  reports(signal: AbortSignal): AsyncGenerator<TickReport>;
}

export interface FeedOptions {
  /** `--connect` values. */
  readonly connect?: readonly string[];
  readonly intervalMs: number;
}

/**
 * Looks for oneself.
 * @throws DomschedError `usage`; from `reports` `host-unreachable`
 */
export async function openFeed(options: FeedOptions): Promise<Feed> {
  const hosts = await connectAll(options.connect ?? []);
  const sampler = new Sampler(hosts, await knownKernels());
  return {
    source: 'sampler',
    async *reports(signal) {
      for await (const missed of ticks(options.intervalMs, signal)) yield await sampler.sample(missed);
    },
    async [Symbol.asyncDispose]() {
      sampler.detach();
      await hosts.close();
    },
  };
}
