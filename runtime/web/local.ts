import type { IncomingMessage } from 'node:http';
import { isIPv4 } from 'node:net';
import { DomschedError } from '../error.ts';

/**
 * Where to listen: a socket file, protected by its permissions, or an address of this machine, which requires a token.
 */
export type Listen = { readonly path: string } | { readonly host: string; readonly port: number };

/**
 * Parses `unix:/run/domsched/page`, `127.0.0.1:9464`, `[::1]:9464` or `localhost:9464`; port 0 means any free port.
 * @throws DomschedError `config-invalid` for an address that other machines could reach
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

/** Accepted values, for messages. */
export const LISTEN_TAKES =
  'it takes a socket like unix:/run/domsched/page, or an address of this machine alone like 127.0.0.1:9464';

/** Whether {@link parseListen} accepts it. */
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
 * Why a request is refused, or undefined. A page of another site can make a browser on this machine call us under that
 * site's name (DNS rebinding), so a request must name a host that can only be this machine.
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
