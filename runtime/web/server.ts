import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import helmet from 'helmet';
import { DomschedError } from '../error.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { listenOnSocket } from '../private-socket.ts';
import type { Observer, Tick } from '../tick/tick.ts';
import { type Asset, loadAssets } from './assets.ts';
import { limitConnections } from './connections.ts';
import { EventHub } from './event-hub.ts';
import { HealthCheck } from './health.ts';
import { type Listen, refusal } from './local.ts';
import { TOKEN_NEEDED, Token } from './token.ts';

/** Connections at once, of pages and others. */
const MOST_CONNECTIONS = 128;
/** How long a client may take to send its request, in ms. */
const REQUEST_MS = 5_000;

/**
 * Allows only our own script files, no inline script and no external source, and no text may become markup (trusted
 * types): a guest's names can be shown but do nothing else.
 */
const secure = helmet({
  contentSecurityPolicy: {
    useDefaults: false,
    directives: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'"],
      styleSrc: ["'self'"],
      imgSrc: ["'self'"],
      connectSrc: ["'self'"],
      baseUri: ["'none'"],
      formAction: ["'none'"],
      frameAncestors: ["'none'"],
      requireTrustedTypesFor: ["'script'"],
      trustedTypes: ["'none'"],
    },
  },
  // There is no TLS on the loopback interface.
  strictTransportSecurity: false,
  xFrameOptions: { action: 'deny' },
});

export interface WebOptions {
  readonly listen: Listen;
  /** Token that a request must carry. Required for an address, since any user of this machine could open that. */
  readonly token?: string;
  readonly metrics: Metrics;
  readonly health?: HealthCheck;
}

/**
 * Serves the daemon's page, its API, metrics and health over HTTP, for this machine only and read-only: no request
 * changes anything.
 *
 * | path | answer |
 * | --- | --- |
 * | `/` | the page |
 * | `/api/state` | the last tick as JSON, 503 before the first |
 * | `/events` | every tick as a server-sent event, the last minutes first |
 * | `/metrics` | for Prometheus |
 * | `/health` | 200 while ticks come, 503 if the last is too old or none has come yet; without a token nothing more |
 */
export class WebServer implements Observer {
  readonly #listen: Listen;
  readonly #token: Token | undefined;
  readonly #server: Server;
  readonly #hub = new EventHub();
  readonly #metrics: Metrics;
  readonly #health: HealthCheck;
  readonly #assets: ReadonlyMap<string, Asset>;
  #last: Tick | undefined;

  private constructor({ listen, token, metrics, health = new HealthCheck() }: WebOptions) {
    this.#listen = listen;
    this.#token = token === undefined ? undefined : new Token(token);
    this.#metrics = metrics;
    this.#health = health;
    this.#assets = loadAssets();
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
    limitConnections(this.#server, MOST_CONNECTIONS);
    this.#server.headersTimeout = REQUEST_MS;
    this.#server.requestTimeout = REQUEST_MS;
  }

  /** @throws DomschedError `config-invalid` if the place is taken or not ours, or an address comes without a token */
  static async open(options: WebOptions): Promise<WebServer> {
    const web = new WebServer(options);
    const { listen } = options;
    if ('host' in listen && options.token === undefined) {
      throw new DomschedError(
        'config-invalid',
        'an address needs a token; a socket like unix:/run/domsched/page does not',
        {
          listen,
        },
      );
    }
    try {
      if ('path' in listen) await listenOnSocket(web.#server, listen.path);
      else {
        web.#server.listen(listen.port, listen.host);
        await once(web.#server, 'listening');
      }
    } catch (cause) {
      const { message } = cause as Error;
      const place = 'path' in listen ? listen.path : `${listen.host}:${listen.port}`;
      throw new DomschedError(
        'config-invalid',
        `cannot listen on ${place}: ${message}`,
        { ...listen },
        { cause },
      );
    }
    return web;
  }

  /** Address of the page: an http URL, or `unix:` and the path. */
  get url(): string {
    if ('path' in this.#listen) return `unix:${this.#listen.path}`;
    const { address, family, port } = this.#server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/`;
  }

  tick(tick: Tick): void {
    this.#last = tick;
    this.#health.tick(tick);
    this.#hub.publish(tick);
  }

  async close(): Promise<void> {
    this.#hub.close();
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
    if ('path' in this.#listen) rmSync(this.#listen.path, { force: true });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      secure(request, response, (error) => (error === undefined ? resolve() : reject(error as Error)));
    });
    const refused = refusal(request);
    if (refused !== undefined) {
      if (refused.status === 405) response.setHeader('allow', 'GET, HEAD');
      return send(response, refused.status, 'text/plain; charset=utf-8', `${refused.message}\n`);
    }
    const url = new URL(request.url ?? '/', 'http://localhost');
    const { pathname } = url;
    if (this.#token !== undefined && !this.#token.isBrought(request)) {
      const cookie = this.#token.cookieFor(url.searchParams.get('token'));
      // The token comes once in the address and then in a cookie, so that it does not stay in the browser's history.
      if (cookie !== undefined && pathname === '/') {
        response.writeHead(303, { 'set-cookie': cookie, location: '/', 'cache-control': 'no-store' }).end();
        return;
      }
      if (pathname === '/health') {
        const { status } = this.#health.get();
        return sendJson(response, status === 'healthy' ? 200 : 503, { status });
      }
      response.setHeader('www-authenticate', 'Bearer');
      return send(response, 401, 'text/plain; charset=utf-8', `${TOKEN_NEEDED}\n`);
    }
    switch (pathname) {
      case '/api/state':
        return sendJson(response, this.#last === undefined ? 503 : 200, this.#last ?? null);
      case '/health': {
        const health = this.#health.get();
        return sendJson(response, health.status === 'healthy' ? 200 : 503, health);
      }
      case '/metrics':
        return send(response, 200, this.#metrics.contentType, await this.#metrics.text());
      case '/events':
        return this.#events(request, response);
    }
    const asset = this.#assets.get(pathname);
    if (asset === undefined) {
      return send(response, 404, 'text/plain; charset=utf-8', 'There is no such page.\n');
    }
    send(response, 200, asset.type, asset.bytes);
  }

  #events(request: IncomingMessage, response: ServerResponse): void {
    const lastId = request.headers['last-event-id'];
    if (request.method === 'HEAD') send(response, 200, 'text/event-stream', '');
    else if (this.#hub.isFull) send(response, 503, 'text/plain; charset=utf-8', 'Too many pages are open.\n');
    else this.#hub.attach(response, typeof lastId === 'string' ? lastId : undefined);
  }
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  send(response, status, 'application/json; charset=utf-8', `${JSON.stringify(value)}\n`);
}

function send(response: ServerResponse, status: number, type: string, body: string | Buffer): void {
  const length = Buffer.byteLength(body);
  response.writeHead(status, { 'content-type': type, 'content-length': length, 'cache-control': 'no-store' });
  response.end(body);
}
