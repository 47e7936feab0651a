import { readFileSync } from 'node:fs';
import { type ConnectionOptions, checkServerIdentity, type PeerCertificate } from 'node:tls';
import {
  type Authenticator,
  credsAuthenticator,
  nkeyAuthenticator,
  type TlsOptions,
  usernamePasswordAuthenticator,
} from '@nats-io/transport-node';
import { DomschedError } from '../error.ts';
import { readSecret } from '../secret-file.ts';
import type { FleetConfig } from './config.ts';

/**
 * Reads a credentials file in any of the three forms that a NATS server knows.
 * @throws DomschedError `config-invalid`
 */
export function readCredentials(file: string): Authenticator {
  const text = readSecret('credentials', file);
  const bytes = new TextEncoder().encode(text);
  if (text.includes('-----BEGIN NATS USER JWT-----')) return credsAuthenticator(bytes);
  if (/^SU[A-Z2-7]{56}$/.test(text)) return nkeyAuthenticator(bytes);
  const [, user, password] = /^([^\s:]+):(\S+)$/.exec(text) ?? [];
  if (user !== undefined && password !== undefined) return usernamePasswordAuthenticator(user, password);
  const why = 'has neither user:password in one line, nor a seed of an NKey, nor what nsc writes';
  throw new DomschedError('config-invalid', `credentials ${file} ${why}`, { file });
}

/** The client of NATS passes these to Node with its own. */
type VerifiedTls = TlsOptions & Pick<ConnectionOptions, 'checkServerIdentity'>;

/**
 * What the connection is to be encrypted by. A server without encryption is refused then.
 * @throws DomschedError `config-invalid`
 */
export function readTls({ tls, servers }: FleetConfig): VerifiedTls | undefined {
  const verify = { checkServerIdentity: verifier(servers) };
  if (tls === undefined || tls === true)
    return tls || servers.some((server) => server.startsWith('tls:')) ? verify : undefined;
  const { ca, cert, key } = tls;
  return {
    ...verify,
    ...(ca !== undefined && { ca: readPem(ca) }),
    ...(cert !== undefined && { cert: readPem(cert) }),
    ...(key !== undefined && { key: readSecret('key', key) }),
  };
}

/**
 * Verifies the name in a server's certificate. For a server that is named by its address the client of NATS passes no name,
 * and Node then asks for a certificate of "localhost": any server of ours is right instead.
 */
function verifier(servers: readonly string[]) {
  const hosts = servers.map((server) => new URL(server).hostname.replace(/^\[|\]$/g, ''));
  return (name: string, certificate: PeerCertificate): Error | undefined => {
    if (name !== 'localhost') return checkServerIdentity(name, certificate);
    const errors = hosts.map((host) => checkServerIdentity(host, certificate));
    return errors.includes(undefined) ? undefined : errors[0];
  };
}

function readPem(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const why = `cannot be read: ${(cause as Error).message}`;
    throw new DomschedError('config-invalid', `tls file ${file} ${why}`, { file }, { cause });
  }
}
