import { ControlClient } from '../daemon/control-client.ts';
import { DomschedError } from '../error.ts';
import { connectAll } from '../hypervisor/connect.ts';
import { knownKernels } from '../layout/registry.ts';
import type { Tick } from '../tick/tick.ts';
import { ticks } from '../tick/ticker.ts';
import type { TraceHeader } from '../trace/line.ts';
import { Watcher } from '../watch/watcher.ts';

/** Ticks that wait for a slow reader; then the oldest is left out. */
const MOST_WAITING = 64;

/** Reports, one per tick, until the signal. */
export interface Feed extends AsyncDisposable {
  readonly source: TraceHeader['source'];
  reports(signal: AbortSignal): AsyncGenerator<Tick>;
}

export interface FeedOptions {
  /** `--connect` values. */
  readonly connect?: readonly string[];
  readonly intervalMs: number;
}

/**
 * From the daemon where one runs, since nobody else can reach a domain that it is attached to; else by looking oneself.
 * Who says where domains are does not mean the daemon.
 * @throws DomschedError `usage`; `host-unreachable`, from `reports` too
 */
export async function openFeed(options: FeedOptions): Promise<Feed> {
  const client = options.connect === undefined ? await ControlClient.connect() : undefined;
  return client === undefined ? openSampler(options) : fromDaemon(client);
}

async function openSampler({ connect = [], intervalMs }: FeedOptions): Promise<Feed> {
  const hosts = await connectAll(connect);
  const watcher = new Watcher(hosts, await knownKernels());
  return {
    source: 'sampler',
    async *reports(signal) {
      for await (const missed of ticks(intervalMs, signal)) yield await watcher.tick(missed);
    },
    async [Symbol.asyncDispose]() {
      watcher.detach();
      await hosts.close();
    },
  };
}

function fromDaemon(client: ControlClient): Feed {
  return {
    source: 'daemon',
    async *reports(signal) {
      const waiting: Tick[] = [];
      let wake = () => {};
      let isOver = false;
      const end = () => {
        isOver = true;
        wake();
      };
      signal.addEventListener('abort', end);
      client
        .watch((report) => {
          waiting.push(report);
          if (waiting.length > MOST_WAITING) waiting.shift();
          wake();
        })
        .then(end, end);
      try {
        while (!signal.aborted) {
          const report = waiting.shift();
          if (report !== undefined) yield report;
          else if (isOver) throw new DomschedError('host-unreachable', 'the daemon ended', {});
          else {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
          }
        }
      } finally {
        signal.removeEventListener('abort', end);
      }
    },
    async [Symbol.asyncDispose]() {
      client.close();
    },
  };
}
