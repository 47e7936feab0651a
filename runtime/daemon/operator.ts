import process from 'node:process';
import type { AccountSample } from '../blame/sample.ts';
import { domainEntry, editAnswer, failureOf, foundHeld, limitsOf, psAnswer } from '../control/answers.ts';
import type {
  DaemonStatus,
  DomainEntry,
  EditAnswer,
  Failure,
  PsAnswer,
  ReleaseAllAnswer,
} from '../control/control.ts';
import { EditRequests, type EditWork, type ProcessEdits } from '../control/edit-requests.ts';
import type { Options } from '../control/schema.ts';
import type { Served } from '../control/server.ts';
import { DomschedError } from '../error.ts';
import type { FleetStatus } from '../fleet/status.ts';
import { findProcess } from '../guest/find-process.ts';
import { LOOK_LIMITS } from '../guest/look-budget.ts';
import { type ShareEntry, shareOf } from '../hypervisor/share.ts';
import { OPERATOR } from '../watch/hold.ts';
import type { WatchedDomain } from '../watch/watched-domain.ts';
import type { Daemon } from './daemon.ts';

const WISH = { policy: OPERATOR, reason: 'an operator asked for it' };

/** Serves operators' requests, which override every policy. */
export class Operator extends EditRequests implements Served {
  readonly #daemon: Daemon;
  readonly #reload: () => Promise<void>;
  readonly #version: string;
  readonly #connect: readonly string[];

  /** @param connect `--connect` values of the domains to serve; all if empty */
  constructor(daemon: Daemon, reload: () => Promise<void>, version: string, connect: readonly string[] = []) {
    super();
    this.#daemon = daemon;
    this.#reload = reload;
    this.#version = version;
    this.#connect = connect;
  }

  async releaseAll(options: Options<'releaseAll'> = {}): Promise<ReleaseAllAnswer> {
    const released: EditAnswer[] = [];
    const failures: Failure[] = [];
    const notes: string[] = [];
    const attempt = async ({ name }: WatchedDomain, what: () => Promise<void>) => {
      try {
        await what();
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        failures.push(failureOf(name, error));
      }
    };
    const one = async (watched: WatchedDomain) => {
      await attempt(watched, async () => {
        for (const record of await watched.search()) notes.push(foundHeld(watched.name, record));
      });
      for (const key of [...(watched.tracker?.holds.keys() ?? [])]) {
        this.#daemon.verdicts.set(key, 'free');
        await attempt(watched, () =>
          watched.operate(async (open) => {
            const process = open.tracker.process(key);
            if (process === undefined) return;
            const operation = await watched.edits.release(open, key, limitsOf(options));
            released.push(editAnswer(watched.name, process, operation));
          }),
        );
      }
    };
    await Promise.all(this.#behind().map(one));
    return { released, failures, notes };
  }

  async share({ domain, ...wanted }: Options<'share'>): Promise<ShareEntry> {
    return this.#find(domain).operate(({ guest }) => shareOf(guest.domain, wanted));
  }

  async ps({ domain, pause = false, threads = false }: Options<'ps'> = {}): Promise<PsAnswer> {
    const asked = domain === undefined ? this.#behind() : [this.#find(domain)];
    return psAnswer(await Promise.all(asked.map((watched) => watched.read({ pause, threads }))));
  }

  async accounts(): Promise<AccountSample> {
    const options = { threads: true, limits: LOOK_LIMITS };
    const looks = await Promise.all(this.#behind().map((watched) => watched.read(options)));
    return this.#daemon.accounts.sample(looks);
  }

  async domains(): Promise<DomainEntry[]> {
    const entries = this.#behind().map(async (watched) => {
      const { id, name, guest, ways, identity } = watched;
      const { hypervisor, vcpus, error = null } = watched.describe();
      const facts = { id, hypervisor, connection: identity?.connection ?? '' };
      if (guest === undefined || ways === undefined)
        return domainEntry(name, { ...facts, state: null, vcpus: null, memoryBytes: null }, { error });
      const frames = guest.domain.frames.regions().reduce((sum, { count }) => sum + count, 0);
      const present = { ...facts, state: 'running' as const, vcpus, memoryBytes: frames * 4096 };
      const standing = await guest.domain.standing?.();
      return domainEntry(name, present, { kernel: guest.kernel, ways }, standing);
    });
    return Promise.all(entries);
  }

  async status(): Promise<DaemonStatus> {
    const { settings, last } = this.#daemon;
    const domains = this.#daemon.behind([]).map((watched) => ({
      id: watched.id,
      name: watched.name,
      attached: watched.guest !== undefined,
      held: watched.tracker?.holds.size ?? 0,
    }));
    const { intervalMs } = settings;
    return { version: this.#version, pid: process.pid, intervalMs, ticks: last?.tick ?? 0, domains };
  }

  async fleet(): Promise<FleetStatus | null> {
    return this.#daemon.settings.fleet?.status() ?? null;
  }

  reload(): Promise<void> {
    return this.#reload();
  }

  #behind(): WatchedDomain[] {
    return this.#daemon.behind(this.#connect);
  }

  #find(domain: string): WatchedDomain {
    return this.#daemon.find(domain, this.#connect);
  }

  protected edit(target: Options<'release'>, work: EditWork): Promise<EditAnswer> {
    const watched = this.#find(target.domain);
    const { name, edits } = watched;
    const { verdicts, log } = this.#daemon;
    return watched.operate(async (open) => {
      const { surgeon, tracker } = open;
      const found = findProcess(name, await watched.refresh(open), target.process);
      const key = tracker.keyOf(found);
      const overruling: ProcessEdits = {
        async hold({ pid, comm }, options) {
          const before = verdicts.get(key);
          if (!options.dryRun) verdicts.set(key, 'hold');
          try {
            return await edits.hold(open, key, WISH, options);
          } catch (error) {
            if (before === undefined) verdicts.delete(key);
            else verdicts.set(key, before);
            throw error;
          } finally {
            log.info({ pid, comm, domain: watched.id }, 'hold by an operator');
          }
        },
        async release(_, options) {
          if (!options.dryRun) verdicts.set(key, 'free');
          return edits.release(open, key, options);
        },
        renice: surgeon.renice.bind(surgeon),
        reniceGroup: surgeon.reniceGroup.bind(surgeon),
      };
      return editAnswer(name, found, await work(overruling, found, limitsOf(target)));
    });
  }
}
