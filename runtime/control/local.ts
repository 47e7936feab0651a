import { DomschedError } from '../error.ts';
import { Guest } from '../guest/guest.ts';
import { connectAll, type Hosts } from '../hypervisor/connect.ts';
import { shareOf } from '../hypervisor/share.ts';
import type { DomainListing, Host } from '../hypervisor/types.ts';
import { type KnownKernel, knownKernels } from '../layout/registry.ts';
import { findWays } from '../surgeon/ways.ts';
import type { Tick } from '../tick/tick.ts';
import { ticks } from '../tick/ticker.ts';
import { Watcher } from '../watch/watcher.ts';
import { psAnswer } from './answers.ts';
import type { Control, DomainEntry, PsAnswer, Ticks, TicksOptions } from './control.ts';
import type { Options } from './schema.ts';

/** Looks and edits without a daemon. It connects to hosts on first use. */
export class LocalControl implements Control {
  /** `--connect` values; every host that is reachable when there are none. */
  readonly connect: readonly string[];
  #hosts: Promise<Hosts> | undefined;
  #watcher: Promise<Watcher> | undefined;

  constructor(connect: readonly string[] = []) {
    this.connect = connect;
  }

  async ps({ domain, pause = false, threads = false }: Options<'ps'> = {}): Promise<PsAnswer> {
    const watcher = await this.#watching();
    const looks = await watcher.look(domain, { pause, threads });
    return psAnswer(
      looks.map((look) => {
        const { name } = look.identity;
        if ('error' in look) return { name, error: look.error };
        const { guest, processes, held } = look;
        return { name, guest, processes, isHeld: (process) => held(process) !== undefined };
      }),
    );
  }

  async domains(): Promise<DomainEntry[]> {
    const known = await knownKernels();
    const found = await (await this.#connected()).list();
    return Promise.all(found.map(({ host, listing }) => describe(host, listing, known)));
  }

  async hold(options: Options<'hold'>) {
    const { technique = 'auto', force = false } = options;
    const ways = technique === 'auto' ? {} : { techniques: [technique] };
    return (await this.#edits()).edit(options, (surgeon, process, limits) =>
      surgeon.hold(process, { ...limits, ...ways, force }),
    );
  }

  async release(options: Options<'release'>) {
    return (await this.#edits()).edit(options, (surgeon, process, limits) =>
      surgeon.release(process, limits),
    );
  }

  async renice(options: Options<'renice'>) {
    const { nice, group = false } = options;
    return (await this.#edits()).edit(options, (surgeon, process, limits) =>
      group ? surgeon.reniceGroup(process, nice, limits) : surgeon.renice(process, nice, limits),
    );
  }

  /** @param served ids of domains that a daemon is attached to, which only it can reach; undefined without a daemon */
  async releaseAll(options: Options<'releaseAll'> = {}, served?: ReadonlySet<string>) {
    const { releaseAll } = await import('./release-all.ts');
    return releaseAll(this.connect, options, served);
  }

  async share({ domain: name, ...wanted }: Options<'share'>) {
    await using domain = await (await this.#connected()).open(name);
    return await shareOf(domain, given(wanted));
  }

  async accounts() {
    return (await this.#watching()).accounts();
  }

  ticks({ signal, intervalMs }: TicksOptions): Ticks {
    const watching = () => this.#watching();
    async function* looks(): AsyncGenerator<Tick> {
      const watcher = await watching();
      for await (const missed of ticks(intervalMs, signal)) yield await watcher.tick(missed);
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

  async #edits() {
    // Loaded here because looking needs no surgeon.
    const { LocalEdits } = await import('./local-edits.ts');
    return new LocalEdits(await this.#connected());
  }
}

/** Attaches to a domain just long enough to identify its kernel. */
async function describe(
  host: Host,
  listing: DomainListing,
  known: readonly KnownKernel[],
): Promise<DomainEntry> {
  const { name: domain, id, hypervisor, connection } = listing.identity;
  const { state, vcpus, memoryBytes } =
    'error' in listing ? { state: null, vcpus: null, memoryBytes: null } : listing;
  const facts = { domain, id, hypervisor, connection, state, vcpus, memoryBytes };
  try {
    if ('error' in listing) throw listing.error;
    await using opened = await host.open(id);
    const guest = await Guest.attach(opened, known);
    const { release, buildId, layout, learned } = guest.kernel;
    const ways = findWays(opened, guest);
    guest.detach();
    const { schedulers } = layout.kernel;
    return { ...facts, kernel: release, buildId, layoutFrom: learned ?? null, schedulers, ways, error: null };
  } catch (error) {
    if (!(error instanceof DomschedError)) throw error;
    const { code, message } = error;
    const none = { kernel: null, buildId: null, layoutFrom: null, schedulers: null, ways: null };
    return { ...facts, ...none, error: { code, message } };
  }
}

/** Drops options that are undefined. */
function given({ weight, cap }: { weight?: number | undefined; cap?: number | undefined }) {
  return { ...(weight !== undefined && { weight }), ...(cap !== undefined && { cap }) };
}
