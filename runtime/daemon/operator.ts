import process from 'node:process';
import type { AccountSample } from '../blame/sample.ts';
import { type DomainLook, editAnswer, failureOf, limitsOf, psAnswer } from '../control/answers.ts';
import type {
  DaemonStatus,
  DomainEntry,
  EditAnswer,
  Failure,
  PsAnswer,
  ReleaseAllAnswer,
} from '../control/control.ts';
import type { Options } from '../control/schema.ts';
import type { Served } from '../control/server.ts';
import { DomschedError } from '../error.ts';
import { findProcess } from '../guest/find-process.ts';
import { LOOK_LIMITS } from '../guest/look-budget.ts';
import type { Process } from '../guest/process.ts';
import { type ShareEntry, shareOf } from '../hypervisor/share.ts';
import type { JournaledSurgeon } from '../surgeon/journaled-surgeon.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import type { AccountedDomain } from '../watch/accounts.ts';
import { OPERATOR } from '../watch/hold.ts';
import type { Tracker } from '../watch/tracker.ts';
import type { WatchedDomain } from '../watch/watched-domain.ts';
import type { Daemon } from './daemon.ts';

const WISH = { policy: OPERATOR, reason: 'an operator asked for it' };

interface OperatorTarget {
  readonly watched: WatchedDomain;
  readonly surgeon: JournaledSurgeon;
  readonly process: Process;
  readonly key: string;
  readonly options: OperateOptions;
}

/** Serves operators' requests, which override every policy. */
export class Operator implements Served {
  readonly #daemon: Daemon;
  readonly #reload: () => Promise<void>;
  readonly #version: string;
  readonly #connect: readonly string[];

  /** @param connect `--connect` values of the domains to serve; all if empty */
  constructor(daemon: Daemon, reload: () => Promise<void>, version: string, connect: readonly string[] = []) {
    this.#daemon = daemon;
    this.#reload = reload;
    this.#version = version;
    this.#connect = connect;
  }

  hold(options: Options<'hold'>): Promise<EditAnswer> {
    const { technique = 'auto', force = false } = options;
    const { verdicts, log } = this.#daemon;
    return this.#operate(options, async ({ watched, process, key, options: limits }) => {
      const before = verdicts.get(key);
      if (!limits.dryRun) verdicts.set(key, 'hold');
      const techniques = technique === 'auto' ? {} : { techniques: [technique] };
      try {
        return await watched.hold(key, WISH, { ...limits, ...techniques, force });
      } catch (error) {
        if (before === undefined) verdicts.delete(key);
        else verdicts.set(key, before);
        throw error;
      } finally {
        log.info({ pid: process.pid, comm: process.comm, domain: watched.id }, 'hold by an operator');
      }
    });
  }

  release(options: Options<'release'>): Promise<EditAnswer> {
    return this.#operate(options, async ({ watched, key, options: limits }) => {
      if (!limits.dryRun) this.#daemon.verdicts.set(key, 'free');
      return watched.release(key, limits);
    });
  }

  renice(options: Options<'renice'>): Promise<EditAnswer> {
    const { nice, group = false } = options;
    return this.#operate(options, ({ surgeon, process, options: limits }) =>
      group ? surgeon.reniceGroup(process, nice, limits) : surgeon.renice(process, nice, limits),
    );
  }

  async releaseAll(options: Options<'releaseAll'> = {}): Promise<ReleaseAllAnswer> {
    const released: EditAnswer[] = [];
    const failures: Failure[] = [];
    const attempt = async ({ name }: WatchedDomain, what: () => Promise<void>) => {
      try {
        await what();
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        failures.push(failureOf(name, error));
      }
    };
    const one = async (watched: WatchedDomain) => {
      await attempt(watched, () => watched.search());
      for (const key of [...(watched.tracker?.holds.keys() ?? [])]) {
        this.#daemon.verdicts.set(key, 'free');
        await attempt(watched, () =>
          watched.operate(async (_, tracker) => {
            const process = tracker.process(key);
            if (process === undefined) return;
            const operation = await watched.release(key, limitsOf(options));
            released.push(editAnswer(watched.name, process, operation));
          }),
        );
      }
    };
    await Promise.all(this.#behind().map(one));
    return { released, failures, notes: [] };
  }

  async share({ domain, weight, cap }: Options<'share'>): Promise<ShareEntry> {
    const wanted = { ...(weight !== undefined && { weight }), ...(cap !== undefined && { cap }) };
    return this.#find(domain).operate(({ guest }) => shareOf(guest.domain, wanted));
  }

  async ps({ domain, pause = false, threads = false }: Options<'ps'> = {}): Promise<PsAnswer> {
    const looks: DomainLook[] = [];
    for (const watched of domain === undefined ? this.#behind() : [this.#find(domain)]) {
      const { guest, tracker, name } = watched;
      if (guest === undefined || tracker === undefined) {
        looks.push({ name, error: watched.describe().error! });
        continue;
      }
      try {
        const { processes } = await guest.take({ pause, threads, withoutQueues: true });
        const isHeld = (process: Process) => tracker.holds.has(tracker.keyOf(process));
        looks.push({ name, guest, processes, isHeld });
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        looks.push({ name, error });
      }
    }
    return psAnswer(looks);
  }

  async domains(): Promise<DomainEntry[]> {
    return this.#behind().map((watched) => {
      const { id, hypervisor, vcpus, error } = watched.describe();
      const { guest, identity } = watched;
      const frames = guest?.domain.frames.regions().reduce((sum, { count }) => sum + count, 0);
      return {
        domain: watched.name,
        id,
        hypervisor,
        connection: identity?.connection ?? '',
        state: guest === undefined ? null : 'running',
        vcpus: guest === undefined ? null : vcpus,
        memoryBytes: frames === undefined ? null : frames * 4096,
        kernel: guest?.kernel.release ?? null,
        buildId: guest?.kernel.buildId ?? null,
        layoutFrom: guest?.kernel.learned ?? null,
        schedulers: guest?.layout.kernel.schedulers ?? null,
        ways: watched.ways ?? null,
        error: guest === undefined ? (error ?? null) : null,
      };
    });
  }

  async accounts(): Promise<AccountSample> {
    const looks: AccountedDomain[] = [];
    for (const watched of this.#behind()) {
      const { identity, guest } = watched;
      if (identity === undefined) continue;
      if (guest === undefined) {
        looks.push({ identity, error: watched.describe().error! });
        continue;
      }
      try {
        const { processes } = await guest.take({ threads: true, withoutQueues: true, limits: LOOK_LIMITS });
        looks.push({ identity, guest, processes });
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        looks.push({ identity, error });
      }
    }
    return this.#daemon.accounts.sample(looks);
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

  reload(): Promise<void> {
    return this.#reload();
  }

  #behind(): WatchedDomain[] {
    return this.#daemon.behind(this.#connect);
  }

  #find(domain: string): WatchedDomain {
    return this.#daemon.find(domain, this.#connect);
  }

  #operate(
    target: Options<'release'>,
    perform: (target: OperatorTarget) => Promise<Operation>,
  ): Promise<EditAnswer> {
    const watched = this.#find(target.domain);
    return watched.operate(async (surgeon, tracker) => {
      const processes = await look(surgeon, tracker, this.#daemon.now());
      const found = findProcess(watched.name, processes, target.process);
      const options = limitsOf(target);
      const key = tracker.keyOf(found);
      const operation = await perform({ watched, surgeon, process: found, key, options });
      return editAnswer(watched.name, found, operation);
    });
  }
}

/** Takes a fresh look: the daemon's last may be a whole interval old. */
async function look(
  { guest }: JournaledSurgeon,
  tracker: Tracker,
  nowMs: number,
): Promise<readonly Process[]> {
  const { processes } = await guest.take({ withoutQueues: true });
  tracker.update(processes, nowMs);
  return processes;
}
