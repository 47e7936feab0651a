import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlClient } from '../daemon/control-client.ts';
import type { PsAnswer } from '../daemon/control-protocol.ts';
import { DomschedError } from '../error.ts';
import type { Guest } from '../guest/guest.ts';
import { harmless, jsonText, plainName } from '../guest/text.ts';
import { connectAll } from '../hypervisor/connect.ts';
import { knownKernels } from '../layout/registry.ts';
import { Watcher } from '../watch/watcher.ts';
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
  const looker = daemon ?? new OwnLooker(new Watcher(hosts!, await knownKernels()), options);
  try {
    for (;;) {
      const look = await looker.look(domain);
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
    looker.detach();
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

/** Looks at all guests without a daemon. */
class OwnLooker {
  readonly #watcher: Watcher;
  readonly #options: PsOptions;

  constructor(watcher: Watcher, options: PsOptions) {
    this.#watcher = watcher;
    this.#options = options;
  }

  async look(wanted: string | undefined): Promise<Look> {
    const { pause = false, threads = false } = this.#options;
    const looks = await this.#watcher.look(wanted, { pause, threads });
    const rows: Row[] = [];
    const errors: Look['errors'][number][] = [];
    const notes: string[] = [];
    for (const look of looks) {
      const domain = look.identity.name;
      if ('error' in look) errors.push({ domain, error: look.error });
      else {
        const { processes, held, guest } = look;
        // The guest itself has no word for it: to its kernel the process sleeps, or is about to run.
        for (const found of processes)
          rows.push({ domain, ...found, ...(held(found) !== undefined && { state: 'held' as const }) });
        notes.push(...notesOn(domain, guest));
      }
    }
    return { rows, errors, notes };
  }

  detach(): void {
    this.#watcher.detach();
  }
}

/** What to know of a list of processes. */
function notesOn(name: string, { kernel, torn, queuesUnknown }: Guest): string[] {
  const notes: string[] = [];
  if (kernel.crashed > 0)
    notes.push(
      `${name}: ${kernel.crashed} of its CPUs have halted in a kernel that crashed; these are the processes of the one that runs in its place`,
    );
  if (torn !== undefined)
    notes.push(`${name}: the guest ran while this image was taken (${torn}); its processes only are read`);
  else if (queuesUnknown !== undefined)
    notes.push(`${name}: its run queues are not read (${queuesUnknown}), its processes are`);
  return notes;
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
