import process from 'node:process';
import Table from 'cli-table3';
import { ControlClient } from '../daemon/control-client.ts';
import { DomschedError } from '../error.ts';
import { Guest } from '../guest/guest.ts';
import { harmless, jsonText, printable } from '../guest/text.ts';
import { connectAll } from '../hypervisor/connect.ts';
import type { DomainListing, DomainState, Host } from '../hypervisor/types.ts';
import { type KnownKernel, knownKernels } from '../layout/registry.ts';
import { findWays, type Ways } from '../surgeon/ways.ts';
import type { DomainsOptions } from './domains.ts';
import { PLAIN } from './plain-table.ts';

/** One line of `domains --json`. Its keys are stable. */
export interface DomainEntry {
  readonly domain: string;
  readonly id: string;
  readonly hypervisor: string;
  readonly connection: string;
  readonly state: DomainState | null;
  readonly vcpus: number | null;
  readonly memoryBytes: number | null;
  /** `uname -r` of the guest; null when it was not identified. */
  readonly kernel: string | null;
  readonly buildId: string | null;
  /** Schedulers that its layout has. */
  readonly schedulers: readonly string[] | null;
  /** Ways in which its processes can be held, and why not in the others; null when it was not identified. */
  readonly ways: Ways | null;
  /** Why there is no layout, or why the domain cannot be looked at. */
  readonly error: { readonly code: string; readonly message: string } | null;
}

/**
 * Runs `domsched domains`. A domain that cannot be identified is listed with the reason.
 * @throws DomschedError `usage`
 */
export async function domains(options: DomainsOptions): Promise<void> {
  const entries = (await byDaemon(options)) ?? (await byOurselves(options));
  if (options.json) process.stdout.write(jsonText(entries));
  else process.stdout.write(domainTable(entries));
}

/** What the daemon has, where one runs: nobody else reaches the machines that it is attached to. */
async function byDaemon({ connect = [] }: DomainsOptions): Promise<DomainEntry[] | undefined> {
  const client = await ControlClient.connect();
  if (client === undefined) return undefined;
  using daemon = client;
  const entries = await daemon.request<DomainEntry[]>('domains', { connect });
  return entries.length >= connect.length ? entries : undefined;
}

async function byOurselves({ connect = [] }: DomainsOptions): Promise<DomainEntry[]> {
  const known = await knownKernels();
  await using hosts = await connectAll(connect);
  const found = await hosts.list();
  return await Promise.all(found.map(({ host, listing }) => describe(host, listing, known)));
}

/** Attaches to a domain for as long as it takes to know its kernel. */
export async function describe(
  host: Host,
  listing: DomainListing,
  known: readonly KnownKernel[],
): Promise<DomainEntry> {
  const { name: domain, id, hypervisor, connection } = listing.identity;
  const entry = { domain, id, hypervisor, connection };
  const unknown = { kernel: null, buildId: null, schedulers: null, ways: null };
  if ('error' in listing) {
    return {
      ...entry,
      state: null,
      vcpus: null,
      memoryBytes: null,
      ...unknown,
      error: reason(listing.error),
    };
  }
  const { state, vcpus, memoryBytes } = listing;
  try {
    await using opened = await host.open(id);
    const guest = await Guest.attach(opened, known);
    const { release, buildId, layout } = guest.kernel;
    const ways = findWays(opened, guest);
    guest.detach();
    return {
      ...entry,
      state,
      vcpus,
      memoryBytes,
      kernel: release,
      buildId,
      schedulers: layout.kernel.schedulers,
      ways,
      error: null,
    };
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return { ...entry, state, vcpus, memoryBytes, ...unknown, error: reason(error) };
  }
}

/** The list for people; names and messages are made safe for a terminal. */
export function domainTable(entries: readonly DomainEntry[]): string {
  if (entries.length === 0) {
    return 'No domain was found. --connect says where to look; domsched doctor says what is missing.\n';
  }
  const table = new Table({
    head: ['domain', 'hypervisor', 'state', 'vcpus', 'MiB', 'kernel', 'layout', 'holds by'],
    ...PLAIN,
  });
  for (const { domain, hypervisor, state, vcpus, memoryBytes, kernel, schedulers, ways, error } of entries) {
    table.push([
      printable(domain),
      hypervisor,
      state ?? '-',
      vcpus ?? '-',
      memoryBytes === null ? '-' : Math.round(memoryBytes / 2 ** 20),
      printable(kernel ?? '-'),
      error === null ? (schedulers ?? []).join(' ') : `none: ${harmless(error.message)} [${error.code}]`,
      ways?.techniques.join(' ') || '-',
    ]);
  }
  return `${table.toString()}\n`;
}

function reason(error: DomschedError): { code: string; message: string } {
  return { code: error.code, message: error.message };
}
