import { createConnection, type Socket } from 'node:net';
import { DomschedError } from '../error.ts';
import { controlPath } from '../runtime-directory.ts';
import type { Tick } from '../tick/tick.ts';
import type { Control, DaemonControl, DomainEntry, TicksOptions } from './control.ts';
import type { LocalControl } from './local.ts';
import type { Options } from './schema.ts';

/**
 * Opens the best source of answers: the daemon if one runs, since only it can reach the machines it is attached to;
 * otherwise, and for domains that it does not have, this process itself.
 * @param connect `--connect` values; every reachable host when there are none
 * @throws DomschedError `host-unreachable` when a daemon runs that we may not talk to
 */
export async function openControl(connect: readonly string[] = []): Promise<Control> {
  const daemon = await openDaemon(connect);
  return daemon === undefined ? await openLocal(connect) : new DaemonFirst(daemon, connect);
}

/**
 * Connects to the daemon on this host.
 * @returns undefined when none runs
 * @throws DomschedError `host-unreachable` when one runs that we may not talk to
 */
export async function openDaemon(
  connect: readonly string[] = [],
  path = controlPath(),
): Promise<DaemonControl | undefined> {
  const socket = await reach(path);
  if (socket === undefined) return undefined;
  const { RemoteControl } = await import('./remote.ts');
  return new RemoteControl(socket, connect);
}

async function openLocal(connect: readonly string[]): Promise<LocalControl> {
  const { LocalControl } = await import('./local.ts');
  return new LocalControl(connect);
}

function reach(path: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    socket.once('connect', () => {
      socket.removeAllListeners('error').on('error', () => undefined);
      resolve(socket);
    });
    socket.once('error', (cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED' || cause.code === 'ENOTDIR')
        resolve(undefined);
      else {
        const message = `the daemon's control socket ${path} cannot be used (${cause.code}); run as root`;
        reject(new DomschedError('host-unreachable', message, { path }, { cause }));
      }
    });
  });
}

/** Asks the daemon for the domains that it has, and this process for the rest. */
class DaemonFirst implements Control {
  readonly #daemon: DaemonControl;
  readonly #connect: readonly string[];
  #own: Promise<LocalControl> | undefined;

  constructor(daemon: DaemonControl, connect: readonly string[]) {
    this.#daemon = daemon;
    this.#connect = connect;
  }

  async ps(options: Options<'ps'> = {}) {
    const { domain } = options;
    const places = await this.#daemon.domains();
    const has = domain === undefined || places.some(({ domain: name, id }) => [name, id].includes(domain));
    return has && this.#hasAll(places) ? this.#daemon.ps(options) : (await this.#local()).ps(options);
  }

  async domains() {
    const entries = await this.#daemon.domains();
    return this.#hasAll(entries) ? entries : (await this.#local()).domains();
  }

  async accounts() {
    const places = await this.#daemon.domains();
    return this.#hasAll(places) ? this.#daemon.accounts() : (await this.#local()).accounts();
  }

  hold = (options: Options<'hold'>) => this.#ask((control) => control.hold(options));
  release = (options: Options<'release'>) => this.#ask((control) => control.release(options));
  renice = (options: Options<'renice'>) => this.#ask((control) => control.renice(options));
  share = (options: Options<'share'>) => this.#ask((control) => control.share(options));

  async releaseAll(options: Options<'releaseAll'> = {}) {
    const own = await this.#daemon.releaseAll(options);
    const served = new Set((await this.#daemon.domains()).map(({ id }) => id));
    const rest = await (await this.#local()).releaseAll(options, served);
    return {
      released: [...own.released, ...rest.released],
      failures: [...own.failures, ...rest.failures],
      notes: [...own.notes, ...rest.notes],
    };
  }

  /** With `--connect` values the daemon is not meant. */
  ticks(options: TicksOptions) {
    if (this.#connect.length === 0) return this.#daemon.ticks(options);
    const local = () => this.#local();
    async function* looks(): AsyncGenerator<Tick> {
      yield* (await local()).ticks(options);
    }
    return Object.assign(looks(), { source: 'sampler' as const });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#daemon[Symbol.asyncDispose]();
    await (await this.#own)?.[Symbol.asyncDispose]();
  }

  /** Whether the daemon is attached to a domain at every place that was named. */
  #hasAll(entries: readonly DomainEntry[]): boolean {
    return entries.length >= this.#connect.length;
  }

  async #ask<T>(perform: (control: Control) => Promise<T>): Promise<T> {
    try {
      return await perform(this.#daemon);
    } catch (error) {
      if (!(error instanceof DomschedError) || error.code !== 'domain-not-found') throw error;
      return perform(await this.#local());
    }
  }

  #local(): Promise<LocalControl> {
    this.#own ??= openLocal(this.#connect);
    return this.#own;
  }
}
