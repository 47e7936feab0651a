import { DomschedError } from '../error.ts';
import { Guest } from '../guest/guest.ts';
import { connectAll, type Hosts } from '../hypervisor/connect.ts';
import { shareOf } from '../hypervisor/share.ts';
import type { DomainListing, Host } from '../hypervisor/types.ts';
import { type KnownKernel, knownKernels } from '../layout/registry.ts';
import { findWays } from '../surgeon/ways.ts';
import type { Tick } from '../tick/tick.ts';
import { Ticker } from '../tick/ticker.ts';
import { openDomain } from '../watch/choose.ts';
import { Watcher } from '../watch/watcher.ts';
import { domainEntry, psAnswer } from './answers.ts';
import type { Control, DomainEntry, EditAnswer, PsAnswer, Ticks, TicksOptions } from './control.ts';
import { EditRequests, type EditWork } from './edit-requests.ts';
import type { Options } from './schema.ts';

/** Looks and edits without a daemon. It connects to hosts on first use. */
export class LocalControl extends EditRequests implements Control {
  /** `--connect` values; every host that is reachable when there are none. */
  readonly connect: readonly string[];
  #hosts: Promise<Hosts> | undefined;
  #watcher: Promise<Watcher> | undefined;

  constructor(connect: readonly string[] = []) {
    super();
    this.connect = connect;
  }

  async ps({ domain, pause = false, threads = false }: Options<'ps'> = {}): Promise<PsAnswer> {
    const watcher = await this.#watching();
    return psAnswer(await watcher.look(domain, { pause, threads }));
  }

  async domains(): Promise<DomainEntry[]> {
    const known = await knownKernels();
    const found = await (await this.#connected()).list();
    return Promise.all(found.map(({ host, listing }) => describe(host, listing, known)));
  }

  protected async edit(target: Options<'release'>, work: EditWork): Promise<EditAnswer> {
    // Loaded here because looking needs no surgeon.
    const { editLocally } = await import('./local-edits.ts');
    return editLocally(await this.#connected(), target, work);
  }

  /** @param served ids of domains that a daemon is attached to, which only it can reach; undefined without a daemon */
  async releaseAll(options: Options<'releaseAll'> = {}, served?: ReadonlySet<string>) {
    const { releaseAll } = await import('./release-all.ts');
    return releaseAll(this.connect, options, served);
  }

  async share({ domain: name, ...wanted }: Options<'share'>) {
    await using domain = await openDomain(await this.#connected(), name);
    return await shareOf(domain, wanted);
  }

  async accounts() {
    return (await this.#watching()).accounts();
  }

  ticks({ signal, intervalMs }: TicksOptions): Ticks {
    const watching = () => this.#watching();
    async function* looks(): AsyncGenerator<Tick> {
      const watcher = await watching();
      for await (const missed of new Ticker(intervalMs).ticks(signal)) yield await watcher.tick(missed);
    }
    return Object.assign(looks(), { source: 'sampler' as const });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    (await this.#watcher?.catch(() => undefined))?.detach();
    await (await this.#hosts?.catch(() => undefined))?.close();
  }

  #connected(): Promise<Hosts> {
    this.#hosts ??= connectAll(this.connect);
    return this.#hosts;
  }

  #watching(): Promise<Watcher> {
    this.#watcher ??= this.#connected().then(async (hosts) => new Watcher(hosts, await knownKernels()));
    return this.#watcher;
  }
}

/** Attaches to a domain just long enough to identify its kernel. */
export async function describe(
  host: Host,
  listing: DomainListing,
  known: readonly KnownKernel[],
): Promise<DomainEntry> {
  const { identity, state, vcpus, memoryBytes } =
    'error' in listing ? { ...listing, state: null, vcpus: null, memoryBytes: null } : listing;
  const facts = { ...identity, state, vcpus, memoryBytes };
  let standing = 'error' in listing ? listing.standing : undefined;
  try {
    if ('error' in listing) throw listing.error;
    await using opened = await host.open(identity.id);
    standing = await opened.standing?.();
    const guest = await Guest.attach(opened, known);
    const ways = findWays(opened, guest);
    guest.detach();
    const present = { ...facts, vcpus: vcpus ?? guest.cpus.length };
    return domainEntry(identity.name, present, { kernel: guest.kernel, ways }, standing);
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    return domainEntry(identity.name, facts, { error }, standing);
  }
}
