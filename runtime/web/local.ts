import type { IncomingMessage } from 'node:http';
import { isIPv4 } from 'node:net';
import { DomschedError } from '../error.ts';

/** An address of this machine that nobody else can reach, and a port; 0 for any that is free. */
export interface Listen {
  readonly host: string;
  readonly port: number;
}

/**
 * Reads `127.0.0.1:9464`, `[::1]:9464` or `localhost:9464`.
 * @throws DomschedError `config-invalid` for anything that others could reach
 */
export function parseListen(text: string): Listen {
  const match = /^(\[::1\]|localhost|[\d.]+):(\d{1,5})$/.exec(text);
  const host = match?.[1]?.replace(/^\[|\]$/g, '');
  const port = Number(match?.[2]);
  if (host === undefined || !isLoopback(host) || port > 65_535) {
    throw new DomschedError(
      'config-invalid',
      `listen is ${JSON.stringify(text)}; it takes an address of this machine alone, like 127.0.0.1:9464`,
      { listen: text },
    );
  }
  return { host, port };
}

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
