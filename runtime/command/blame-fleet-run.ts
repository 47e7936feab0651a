import { randomBytes } from 'node:crypto';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { DomschedError, exitCodeOf } from '../error.ts';
import { LONGEST_BLAME_S, LONGEST_TOLD, SHORTEST_LOOK_S } from '../fleet/blame-word.ts';
import { FleetClient } from '../fleet/client.ts';
import { harmless, jsonText, printable } from '../guest/text.ts';
import { matches } from '../policy/selector.ts';
import { type FleetBlame, fleetBlameEntry, hostBlame } from './blame-fleet-entry.ts';
import { fleetBlameText } from './blame-fleet-text.ts';
import type { BlameOptions } from './blame-options.ts';
import { fleetConfig } from './fleet-config.ts';

/**
 * Runs `domsched blame --fleet` until the time is over, or SIGINT or SIGTERM: every host looks by itself, and tells what
 * it found at the end.
 * @throws DomschedError `usage`, `config-invalid`, `host-unreachable`, `domain-not-found`, `process-not-found`; the
 *   error of the only host that answered
 */
export async function blameFleet(
  domain: string | undefined,
  target: string | undefined,
  options: BlameOptions,
): Promise<void> {
  const { for: seconds, interval, host: hosts = [], config } = options;
  checkUsage(domain, target, options);
  const stop = new AbortController();
  const onSignal = () => stop.abort();
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal);
  try {
    await using client = await FleetClient.open(await fleetConfig(config));
    const id = randomBytes(9).toString('base64url');
    const wanted = {
      ...(domain !== undefined && { domain }),
      ...(target !== undefined && { process: target }),
    };
    // Hosts of every version answer to a check: of those that know no blame it is known that they are there.
    const [there, begun] = await Promise.all([
      client.check(''),
      client.beginBlame({ id, seconds, interval, hosts, ...wanted }),
    ]);
    const versions = new Map(
      [...there, ...begun.answers]
        .filter(({ host }) => hosts.length === 0 || matches(hosts, host))
        .map(({ host, version }) => [host, version]),
    );
    if (versions.size === 0) throw nobody(hosts);
    const looking = begun.answers.filter((one) => 'domains' in one);
    const missing = looking.length === begun.answers.length ? missingOf(looking, domain, target) : undefined;
    if (missing !== undefined) {
      // Otherwise hosts would look until the time is over, for nobody.
      await client.endBlame(id);
      throw missing;
    }
    if (looking.length > 0) await sleep(seconds * 1000, undefined, { signal: stop.signal }).catch(() => {});
    const ended = await client.endBlame(id);
    const told = new Set(
      [...begun.answers.filter((one) => 'error' in one), ...ended.answers].map(({ host }) => host),
    );
    const failures = [...begun.answers, ...ended.answers].flatMap(({ host, ...one }) =>
      'error' in one ? [{ host, ...one.error }] : [],
    );
    const result: FleetBlame = {
      domain: domain ?? null,
      process: target ?? null,
      hosts: ended.answers
        .flatMap(({ host, version, ...one }) => ('culprits' in one ? [hostBlame(host, version, one)] : []))
        .sort((a, b) => b.waitedNs - a.waitedNs),
      silent: [...versions.keys()].filter((host) => !told.has(host)).sort(),
    };
    if (options.json) process.stdout.write(jsonText(fleetBlameEntry(result)));
    else if (result.hosts.length > 0) process.stdout.write(fleetBlameText(result));
    for (const note of [...begun.notes, ...ended.notes])
      process.stderr.write(`domsched: ${harmless(note)}\n`);
    for (const host of result.silent)
      process.stderr.write(
        `domsched: ${host} (${printable(versions.get(host)!)}) is there and tells nothing: its version knows no blame, or it was cut off\n`,
      );
    for (const { host, code, message } of failures)
      process.stderr.write(`domsched: ${host}: ${harmless(message)} [${code}]\n`);
    const codes = failures.map(({ code }) => exitCodeOf(code as never));
    if (result.hosts.length === 0) codes.push(1);
    if (codes.length > 0) process.exitCode = codes.reduce<number>((most, code) => Math.max(most, code), 0);
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

/** @throws DomschedError `usage` */
function checkUsage(
  domain: string | undefined,
  target: string | undefined,
  { for: seconds, interval, host: hosts = [] }: BlameOptions,
): void {
  const wrong = (text: string) => new DomschedError('usage', text, {});
  if (seconds > LONGEST_BLAME_S) throw wrong(`--for takes at most ${LONGEST_BLAME_S} s with --fleet`);
  if (interval < SHORTEST_LOOK_S || interval > 60)
    throw wrong(`--interval takes ${SHORTEST_LOOK_S} to 60 s with --fleet`);
  if (hosts.length > 100) throw wrong('--host takes at most 100 names; * stands for any characters');
  for (const name of [domain, target, ...hosts])
    if (name !== undefined && name.length > LONGEST_TOLD)
      throw wrong(`a name has at most ${LONGEST_TOLD} characters`);
}

function nobody(hosts: readonly string[]): DomschedError {
  const which = hosts.length === 0 ? 'no host' : `no host that ${hosts.map(printable).join(' or ')} means`;
  const text = `${which} of the fleet answered; domsched fleet status says on each how it stands`;
  return new DomschedError('host-unreachable', text, { hosts });
}

/** Says what of the question no host has. */
function missingOf(
  looking: readonly { readonly domains: number; readonly processes: number }[],
  domain: string | undefined,
  target: string | undefined,
): DomschedError | undefined {
  if (looking.length === 0) return undefined;
  const lists = 'domsched ps --fleet lists those that there are';
  if (domain !== undefined && looking.every(({ domains }) => domains === 0)) {
    const text = `no host has a domain ${printable(domain)}; ${lists}`;
    return new DomschedError('domain-not-found', text, { domain });
  }
  if (target !== undefined && looking.every(({ processes }) => processes === 0)) {
    const text = `no host has a process ${printable(target)} there; ${lists}`;
    return new DomschedError('process-not-found', text, { domain, process: target });
  }
  return undefined;
}
