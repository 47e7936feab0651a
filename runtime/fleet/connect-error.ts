import { DomschedError } from '../error.ts';

/** What Node says of a certificate that it does not take. */
const UNTRUSTED =
  /^(UNABLE_TO_|CERT_|SELF_SIGNED_|DEPTH_ZERO_|INVALID_CA|HOSTNAME_MISMATCH|ERR_TLS_CERT_ALTNAME_INVALID)/;

/** Why there is no connection to a server of the fleet, and what to do about it. */
export function connectError(cause: Error, servers: readonly string[]): DomschedError {
  const which = servers.join(', ');
  const { message, code = '' } = cause as NodeJS.ErrnoException;
  const failed = (kind: 'refused' | 'host-unreachable', text: string) =>
    new DomschedError(kind, text, { servers }, { cause });
  if (UNTRUSTED.test(code)) {
    const next =
      'ca of tls in [fleet] names the file with who signed it, and servers the name that it is for';
    return failed(
      'refused',
      `the certificate of the fleet's server cannot be trusted (${which}): ${code}; ${next}`,
    );
  }
  if (/does not support 'tls'/.test(message)) {
    const next = 'give the server a certificate, or leave tls out of [fleet] on a network that you trust';
    return failed('refused', `the fleet's server does not encrypt (${which}); ${next}`);
  }
  if (/authori[sz]ation|authentication/i.test(message)) {
    const next = 'see credentials and name in [fleet], and whom the server lets in';
    return failed('refused', `the fleet's server does not let this host in (${which}): ${message}; ${next}`);
  }
  const next = 'see that it runs, and what servers and tls in [fleet] say';
  return failed('host-unreachable', `no server of the fleet answers (${which}): ${message}; ${next}`);
}
