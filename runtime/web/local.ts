import type { IncomingMessage } from 'node:http';
import { isIPv4 } from 'node:net';
import { DomschedError } from '../error.ts';

/** Where to listen: a socket file, which its permissions guard; or an address of this machine that asks for a token. */
export type Listen = { readonly path: string } | { readonly host: string; readonly port: number };

/**
 * Reads `unix:/run/domsched/page`, `127.0.0.1:9464`, `[::1]:9464` or `localhost:9464`; port 0 is any that is free.
 * @throws DomschedError `config-invalid` for anything that other machines could reach
 */
export function parseListen(text: string): Listen {
  const path = /^unix:(\/.+)$/.exec(text)?.[1];
  if (path !== undefined && !path.includes('\0')) return { path };
  const match = /^(\[::1\]|localhost|[\d.]+):(\d{1,5})$/.exec(text);
  const host = match?.[1]?.replace(/^\[|\]$/g, '');
  const port = Number(match?.[2]);
  if (host === undefined || !isLoopback(host) || port > 65_535) {
    throw new DomschedError('config-invalid', `listen is ${JSON.stringify(text)}; ${LISTEN_TAKES}`, {
      listen: text,
    });
  }
  return { host, port };
}

/** What a configuration may say. */
export const LISTEN_TAKES =
  'it takes a socket like unix:/run/domsched/page, or an address of this machine alone like 127.0.0.1:9464';

/** Whether {@link parseListen} takes it. */
export function isListen(text: string): boolean {
  try {
    parseListen(text);
    return true;
  } catch {
    return false;
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/**
 * Why a request is not answered, or undefined. A page of another site can make a browser on this machine ask us under
 * a name of that site's own (DNS rebinding): whoever asks for us must say a name that is only ever this machine's.
 */
export function refusal(request: IncomingMessage): { status: number; message: string } | undefined {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, message: 'There is nothing to change here: GET and HEAD only.' };
  }
  const name = /^(\[[0-9a-f:]+\]|[^:]+)(:\d+)?$/i.exec(request.headers.host ?? '')?.[1];
  if (name === undefined || !isLoopback(name.toLowerCase().replace(/^\[|\]$/g, ''))) {
    return { status: 403, message: 'Ask for localhost.' };
  }
  const isNavigation = request.headers['sec-fetch-mode'] === 'navigate';
  if (request.headers['sec-fetch-site'] === 'cross-site' && !isNavigation) {
    return { status: 403, message: 'Not for pages of other sites.' };
  }
  return undefined;
}
