import path from 'node:path';
import type { Logger } from 'pino';
import { Metrics } from '../metrics/metrics.ts';
import { runtimeDirectory } from '../runtime-directory.ts';
import type { Observer } from '../tick/tick.ts';
import { type DiskRoom, TraceRecorder } from '../trace/recorder.ts';
import { parseListen } from '../web/local.ts';
import { WebServer } from '../web/server.ts';
import { readToken } from '../web/token.ts';
import type { ObserverConfig } from './observers-config.ts';

/**
 * Makes the observers that the configuration names. If one fails, the others are closed.
 * @param host name of this host in its fleet
 * @throws DomschedError `config-invalid` if the port is taken or others may read the token; `usage` if the trace cannot
 *   be written
 */
export async function makeObservers(
  { http, trace }: ObserverConfig,
  log: Logger,
  host?: string,
): Promise<Observer[]> {
  const observers: Observer[] = [];
  try {
    if (http !== undefined) {
      const metrics = new Metrics({ processes: http.processes });
      observers.push(metrics);
      const { listen = `unix:${path.join(runtimeDirectory(), 'page')}`, tokenFile } = http;
      const token = tokenFile === undefined ? undefined : readToken(tokenFile);
      const web = await WebServer.open({ listen: parseListen(listen), metrics, ...(token && { token }) });
      observers.push(web);
      log.info({ url: web.url, ...(tokenFile && { tokenFile }) }, 'the page is there');
    }
    if (trace !== undefined) {
      const { file, maxSize } = trace;
      const onError = (error: Error) => log.error({ err: error }, 'the trace ends, the daemon goes on');
      const onRoom = (room: DiskRoom) => {
        if (room.isFull) log.warn({ file }, 'no room for the trace: ticks are left out until there is');
        else log.info({ file, dropped: room.dropped }, 'the trace goes on');
      };
      const maxBytes = maxSize * 2 ** 20;
      const options = { file, maxBytes, source: 'daemon', onError, onRoom, ...(host && { host }) } as const;
      observers.push(await TraceRecorder.create(options));
      log.info({ file }, 'tracing');
    }
    return observers;
  } catch (error) {
    await Promise.allSettled(observers.map((observer) => observer.close()));
    throw error;
  }
}
