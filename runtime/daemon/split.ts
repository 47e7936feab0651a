import {
  accessSync,
  chmodSync,
  constants,
  lchownSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { readerUser } from '../broker/reader-user.ts';
import { BrokerClient } from '../brokered/client.ts';
import { dropRoot } from '../brokered/drop-root.ts';
import { BrokeredHost } from '../brokered/host.ts';
import { brokeredJournals } from '../brokered/journals.ts';
import { DomschedError } from '../error.ts';
import { Hosts } from '../hypervisor/connect.ts';
import { makePrivate, runtimeDirectory } from '../runtime-directory.ts';
import type { Journals } from '../surgeon/journaled-surgeon.ts';
import type { Observer } from '../tick/tick.ts';
import { readConfig } from './config.ts';
import type { Config } from './config-schema.ts';
import { makeObservers } from './observers.ts';

/** The daemon in two processes: a broker with root's rights, and this one, which gives them up. */
export class Split implements AsyncDisposable {
  readonly client: BrokerClient;
  readonly hosts: Hosts;
  readonly journals: Journals;
  /** The reader's folder. */
  readonly #own: string;

  private constructor(client: BrokerClient, hosts: Hosts, own: string) {
    this.client = client;
    this.hosts = hosts;
    this.journals = brokeredJournals(client, own);
    this.#own = own;
  }

  /**
   * Starts the broker while we are root.
   * @param connect `pid:`, `pid:N`, `qemu:` or `qemu:unix:/path` each
   * @throws DomschedError `refused` when we are not
   */
  static async start(connect: readonly string[]): Promise<Split> {
    if (process.geteuid?.() !== 0) {
      throw new DomschedError('refused', 'split = true is for a daemon that is run as root', {});
    }
    // It would be another folder for another user.
    process.env.DOMSCHED_RUNTIME_DIR = runtimeDirectory();
    const own = path.join(runtimeDirectory(), 'reader');
    makeReaderFolder(own);
    process.env.DOMSCHED_CACHE_DIR = path.join(own, 'cache');
    const client = BrokerClient.start(connect);
    const hosts = connect.map((spec, index) => new BrokeredHost(client, spec, index));
    try {
      for (const host of hosts) await host.list();
    } catch (error) {
      await client.close();
      throw error;
    }
    return new Split(client, new Hosts(hosts), own);
  }

  /**
   * The trace, which is the reader's own. Only after {@link giveUpRoot}.
   * @throws DomschedError `usage` if the reader cannot write it
   */
  async trace({ trace }: Config, log: Logger): Promise<readonly Observer[]> {
    try {
      return await makeObservers({ trace }, log);
    } catch (error) {
      if (!(error instanceof DomschedError && error.code === 'usage')) throw error;
      const message = `${error.message}; with split = true its folder has to be the reader's, as ${this.#own} is`;
      throw new DomschedError('usage', message, error.details, { cause: error });
    }
  }

  /**
   * Reads the configuration again, after {@link giveUpRoot}.
   * @throws DomschedError `config-invalid`; `refused` for what takes a restart
   */
  async readAgain(file: string, before: Config): Promise<Config> {
    try {
      accessSync(file, constants.R_OK);
    } catch (cause) {
      const message = `with split = true every user has to be able to read ${file}, or the daemon to be restarted`;
      throw new DomschedError('refused', message, { path: file }, { cause });
    }
    const next = await readConfig(file);
    expectReadersChange(before, next);
    return next;
  }

  /** Ends the broker. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.close();
  }

  /**
   * Gives up root, when all is open that nobody else may open.
   * @throws DomschedError `refused`
   */
  giveUpRoot(): void {
    dropRoot();
    const file = fileURLToPath(import.meta.url);
    try {
      readFileSync(file);
    } catch (cause) {
      const message = `with split = true every user has to be able to read domsched's files: ${file}`;
      throw new DomschedError('refused', message, { path: file }, { cause });
    }
  }
}

/**
 * Requires that a configuration differs from the one before only in what the reader can change by itself.
 * @throws DomschedError `refused` with the keys that need a restart
 */
export function expectReadersChange(before: Config, next: Config): void {
  const parts = ({ connect, split, http, trace, log: { file } }: Config) => ({
    connect,
    split,
    http,
    trace,
    'log.file': file,
  });
  const [old, wanted] = [parts(before), parts(next)];
  const keys = (Object.keys(old) as (keyof typeof old)[]).filter(
    (key) => JSON.stringify(old[key]) !== JSON.stringify(wanted[key]),
  );
  if (keys.length === 0) return;
  const why = 'because the reader has given up root';
  const message = `with split = true a daemon that runs keeps its ${keys.join(', ')}, ${why}: restart it, or undo that change`;
  throw new DomschedError('refused', message, { keys });
}

/** A folder of the reader's in one of root's, through which others may go and see nothing. */
function makeReaderFolder(folder: string): void {
  const directory = path.dirname(folder);
  makePrivate(directory);
  chmodSync(directory, 0o711);
  const { uid, gid } = readerUser();
  const before = lstatSync(folder, { throwIfNoEntry: false });
  if (before?.uid === uid && before.gid === gid) return;
  // What another reader's user has kept there can be done without, and is not given to this one.
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { mode: 0o700 });
  lchownSync(folder, uid, gid);
}
