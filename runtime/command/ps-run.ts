import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlClient } from '../daemon/control-client.ts';
import type { PsAnswer } from '../daemon/control-protocol.ts';
import { DomschedError } from '../error.ts';
import { Guest } from '../guest/guest.ts';
import type { Process } from '../guest/process.ts';
import { harmless, isNamed, jsonText, plainName, printable } from '../guest/text.ts';
import { connectAll, type Hosts } from '../hypervisor/connect.ts';
import type { DomainListing, Host } from '../hypervisor/types.ts';
import { type KnownKernel, knownKernels } from '../layout/registry.ts';
import { HeldRecords } from '../surgeon/held-records.ts';
import { Journal } from '../surgeon/journal.ts';
import type { PsOptions } from './ps.ts';
import { comparison, flat, tree } from './ps-order.ts';
import { type Row, table } from './ps-table.ts';

const DEFAULT_INTERVAL_S = 2;
const SHORTEST_INTERVAL_S = 0.01;
/** Longest time that a timer of Node keeps, in seconds. */
const LONGEST_INTERVAL_S = 2_147_483;

interface Look {
  readonly rows: readonly Row[];
  /** Of domains that could not be read, with their names. */
  readonly errors: readonly { readonly domain: string; readonly error: DomschedError }[];
  /** What to know of what is shown. */
  readonly notes: readonly string[];
}

/**
 * Runs `domsched ps`. A domain that cannot be read is reported and does not keep the others from being shown.
 * @throws DomschedError `usage`, `domain-not-found`, `domain-ambiguous`; what went wrong with the only domain asked for
 */
export async function ps(domain: string | undefined, options: PsOptions): Promise<void> {
  const compare = comparison(options.sort ?? 'pid');
  const interval = options.watch === undefined ? undefined : seconds(options.watch);
  // `ps | head`: the reader has seen enough.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    throw error;
  });
  const daemon = await DaemonLooker.connect(domain, options);
  await using hosts = daemon === undefined ? await connectAll(options.connect ?? []) : undefined;
  const watcher = daemon ?? new Watcher(hosts!, await knownKernels(), options);
  try {
    for (;;) {
      const look = await watcher.look(domain);
      // One domain after the other, unless an order over all processes of the host is asked for.
      const order = options.tree ? tree : flat;
      const grouped = options.tree || options.sort === undefined;
      const groups = grouped ? [...perDomain(look.rows)] : [look.rows];
      const listed = groups.flatMap((rows) => order(rows, compare));
      let text: string;
      if (options.json) text = jsonText(listed.map(({ process: row }) => entry(row)));
      else text = listed.length === 0 ? '' : table(listed);
      // Home and clear before each picture, on a terminal only.
      const clear = interval !== undefined && process.stdout.isTTY ? '\x1b[H\x1b[2J' : '';
      await write(`${clear}${text}`);
      for (const note of look.notes) process.stderr.write(`domsched: ${harmless(note)}\n`);
      for (const failure of look.errors) {
        process.stderr.write(`domsched: ${harmless(failure.error.message)} [${failure.error.code}]\n`);
      }
      if (interval === undefined) {
        if (look.errors.length > 0) process.exitCode = worst(look.errors.map(({ error }) => error.exitCode));
        return;
      }
      await sleep(interval * 1000);
    }
  } finally {
    watcher.detach();
  }
}

/** Has the daemon look: where one runs, nobody else reaches the machines that it is attached to. */
class DaemonLooker {
  readonly #client: ControlClient;
  readonly #options: PsOptions;

  private constructor(client: ControlClient, options: PsOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** @returns undefined where no daemon runs, or it does not have what is asked for */
  static async connect(domain: string | undefined, options: PsOptions): Promise<DaemonLooker | undefined> {
    const client = await ControlClient.connect();
    if (client === undefined) return undefined;
    const looker = new DaemonLooker(client, options);
    const { connect = [] } = options;
    const places = await client.request<{ domain: string; id: string }[]>('domains', { connect });
    const has = domain === undefined || places.some(({ domain: name, id }) => [name, id].includes(domain));
    if (has && places.length >= connect.length) return looker;
    looker.detach();
    return undefined;
  }

  async look(domain: string | undefined): Promise<Look> {
    const { connect = [], pause = false, threads = false } = this.#options;
    const { rows, errors } = await this.#client.request<PsAnswer>('ps', { domain, connect, pause, threads });
    return {
      rows,
      errors: errors.map(({ domain: name, code, message }) => ({
        domain: name,
        error: new DomschedError(code as never, message),
      })),
      notes: [],
    };
  }

  detach(): void {
    this.#client.close();
  }
}

/** Looks at all guests without a daemon. Keeps what it attached to between two looks. */
export class Watcher {
  readonly #hosts: Hosts;
  readonly #known: readonly KnownKernel[];
  readonly #options: PsOptions;
  readonly #guests = new Map<string, { readonly guest: Guest; readonly records: HeldRecords }>();
  readonly #journal = new Journal();

  constructor(hosts: Hosts, known: readonly KnownKernel[], options: PsOptions) {
    this.#hosts = hosts;
    this.#known = known;
    this.#options = options;
  }

  async look(wanted: string | undefined): Promise<Look> {
    const listings = await this.#hosts.list();
    const chosen = wanted === undefined ? listings : choose(listings, wanted);
    const results = await Promise.all(chosen.map((found) => this.#read(found)));
    return {
      rows: results.flatMap(({ rows }) => rows),
      errors: results.flatMap(({ errors }) => errors),
      notes: results.flatMap(({ notes }) => notes),
    };
  }

  detach(): void {
    for (const { guest } of this.#guests.values()) guest.detach();
    this.#guests.clear();
  }

  async #read({ host, listing }: Found): Promise<Look> {
    const { id, name } = listing.identity;
    try {
      if ('error' in listing) throw listing.error;
      const key = `${host.connection} ${id}`;
      const held = (await this.#journal.list()).filter(({ domain }) => domain === id);
      const snapshot = await this.#snapshot(key, host, id);
      const { records, guest } = this.#guests.get(key)!;
      const { torn, queuesUnknown } = guest;
      const rows = snapshot.map((found) => ({
        domain: name,
        ...found,
        // The guest itself has no word for it: to its kernel the process sleeps, or is about to run.
        ...(records.find(held, found) !== undefined && { state: 'held' as const }),
      }));
      const notes: string[] = [];
      if (guest.kernel.crashed > 0)
        notes.push(
          `${name}: ${guest.kernel.crashed} of its CPUs have halted in a kernel that crashed; these are the processes of the one that runs in its place`,
        );
      if (torn !== undefined)
        notes.push(
          `${name}: the guest ran while this image was taken (${torn}); its processes only are read`,
        );
      else if (queuesUnknown !== undefined)
        notes.push(`${name}: its run queues are not read (${queuesUnknown}), its processes are`);
      return { rows, errors: [], notes };
    } catch (error) {
      if (error instanceof DomschedError) return { rows: [], errors: [{ domain: name, error }], notes: [] };
      throw error;
    }
  }

  async #snapshot(key: string, host: Host, id: string): Promise<readonly Process[]> {
    const { pause, threads } = this.#options;
    const take = { pause: pause ?? false, threads: threads ?? false, withoutQueues: true };
    const before = this.#guests.get(key);
    if (before !== undefined) {
      try {
        return (await before.guest.take(take)).processes;
      } catch (error) {
        // The guest rebooted, or the domain was started anew: look again who it is.
        if (!(error instanceof DomschedError)) throw error;
        before.guest.detach();
        this.#guests.delete(key);
        if (!['kernel-unidentified', 'domain-gone'].includes(error.code)) throw error;
      }
    }
    const guest = await Guest.attach(await host.open(id), this.#known);
    try {
      const { processes } = await guest.take(take);
      this.#guests.set(key, { guest, records: HeldRecords.of(guest, processes) });
      return processes;
    } catch (error) {
      guest.detach();
      throw error;
    }
  }
}

interface Found {
  readonly host: Host;
  readonly listing: DomainListing;
}

function choose(listings: readonly Found[], wanted: string): readonly Found[] {
  const found = listings.filter(
    ({ listing: { identity } }) => isNamed(identity.name, wanted) || identity.id === wanted,
  );
  if (found.length === 1) return found;
  if (found.length === 0) {
    // One that cannot be asked for its name may be the one.
    const silent = listings.find(({ listing }) => 'error' in listing);
    if (silent !== undefined && 'error' in silent.listing) throw silent.listing.error;
    throw new DomschedError(
      'domain-not-found',
      `there is no domain ${printable(wanted)}; domsched domains lists those that there are, --connect says where to look`,
      { domain: wanted },
    );
  }
  const ids = found.map(({ listing }) => listing.identity.id);
  throw new DomschedError(
    'domain-ambiguous',
    `${ids.length} domains are called ${printable(wanted)}; give one of ${ids.join(', ')}`,
    { domain: wanted, ids },
  );
}

/** What `--json` shows of a process: stable keys. */
function entry(row: Row) {
  const { domain, pid, tgid, ppid, comm, state, cpu, nice, policy, utimeNs, stimeNs, threads, kernelThread } =
    row;
  // Spelt for terminals so far.
  const name = plainName(comm);
  return {
    domain,
    pid,
    tgid,
    ppid,
    comm: name,
    state,
    cpu,
    nice,
    policy,
    utimeNs,
    stimeNs,
    threads,
    kernelThread,
  };
}

function perDomain(rows: readonly Row[]): Iterable<readonly Row[]> {
  return Map.groupBy(rows, ({ domain }) => domain).values();
}

function seconds(value: string | true): number {
  const number = value === true ? DEFAULT_INTERVAL_S : Number(value);
  if (number >= SHORTEST_INTERVAL_S && number <= LONGEST_INTERVAL_S) return number;
  throw new DomschedError(
    'usage',
    `--watch takes seconds from ${SHORTEST_INTERVAL_S} to ${LONGEST_INTERVAL_S}, not ${JSON.stringify(value)}`,
    { watch: value },
  );
}

/** A refusal for safety tells more than a failure. */
function worst(codes: readonly number[]): number {
  return Math.max(...codes);
}

/** Waits until a slow reader took it: nothing is lost when the program ends. */
async function write(text: string): Promise<void> {
  if (process.stdout.write(text)) return;
  await new Promise((resolve) => process.stdout.once('drain', resolve));
}
