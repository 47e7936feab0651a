import { z } from 'zod';
import { describeEdit } from '../edit/edit.ts';
import { DomschedError } from '../error.ts';
import { findProcess } from '../guest/find-process.ts';
import type { Process } from '../guest/process.ts';
import { printable } from '../guest/text.ts';
import { shareOf } from '../hypervisor/share.ts';
import type { JournaledSurgeon } from '../surgeon/journaled-surgeon.ts';
import type { OperateOptions, Operation } from '../surgeon/surgeon.ts';
import { OPERATOR } from '../watch/hold.ts';
import type { Tracker } from '../watch/tracker.ts';
import type { WatchedDomain } from '../watch/watched-domain.ts';
import type { EditAnswer, PsAnswer, ReleaseAllAnswer } from './control-protocol.ts';
import type { Operations, Parameters } from './control-server.ts';
import type { Daemon } from './daemon.ts';

const connect = z.array(z.string()).max(1000).default([]);
const TARGET = z.object({
  domain: z.string(),
  process: z.string(),
  connect,
  timeout: z.number().min(0).max(600).default(5),
  dryRun: z.boolean().default(false),
});
const HOLD = TARGET.extend({
  technique: z.enum(['auto', 'splice', 'state', 'park']).default('auto'),
  force: z.boolean().default(false),
});
const RENICE = TARGET.extend({ nice: z.number(), group: z.boolean().default(false) });
const ALL = z.object({ connect, timeout: z.number().min(0).max(600).default(5) });
const SHARE = z.object({
  domain: z.string(),
  connect,
  weight: z.number().optional(),
  cap: z.number().optional(),
});
const PS = z.object({
  domain: z.string().optional(),
  connect,
  pause: z.boolean().default(false),
  threads: z.boolean().default(false),
});

const WISH = { policy: OPERATOR, reason: 'an operator asked for it' };

/**
 * What the control socket serves. With the daemon attached nobody else reaches a machine of QEMU, so whatever a
 * command wants of one it asks for here; and what an operator says of a process goes before any policy.
 */
export function controlOperations(daemon: Daemon, reload: () => Promise<void>, version: string): Operations {
  return {
    status: async () => status(daemon, version),
    report: async () => daemon.last ?? null,
    reload: async () => reload(),
    hold: async (parameters) => {
      const { technique, force, ...target } = read(HOLD, parameters);
      return operate(daemon, target, async ({ watched, process, key, options }) => {
        const before = daemon.verdicts.get(key);
        if (!target.dryRun) daemon.verdicts.set(key, 'hold');
        const techniques = technique === 'auto' ? {} : { techniques: [technique] };
        try {
          return await watched.hold(key, WISH, { ...options, ...techniques, force });
        } catch (error) {
          if (before === undefined) daemon.verdicts.delete(key);
          else daemon.verdicts.set(key, before);
          throw error;
        } finally {
          daemon.log.info(
            { pid: process.pid, comm: process.comm, domain: watched.id },
            'hold by an operator',
          );
        }
      });
    },
    release: async (parameters) =>
      operate(daemon, read(TARGET, parameters), async ({ watched, key, options }) => {
        if (!options.dryRun) daemon.verdicts.set(key, 'free');
        return watched.release(key, options);
      }),
    releaseAll: async (parameters) => releaseAll(daemon, parameters),
    renice: async (parameters) => {
      const { nice, group, ...target } = read(RENICE, parameters);
      return operate(daemon, target, ({ surgeon, process, options }) =>
        group ? surgeon.reniceGroup(process, nice, options) : surgeon.renice(process, nice, options),
      );
    },
    share: async (parameters) => share(daemon, parameters),
    ps: async (parameters) => ps(daemon, parameters),
    domains: async (parameters) => domains(daemon, read(z.object({ connect }), parameters).connect),
  };
}

interface Target {
  readonly watched: WatchedDomain;
  readonly surgeon: JournaledSurgeon;
  readonly process: Process;
  readonly key: string;
  readonly options: OperateOptions;
}

async function operate(
  daemon: Daemon,
  target: z.output<typeof TARGET>,
  perform: (target: Target) => Promise<Operation>,
): Promise<EditAnswer> {
  const watched = daemon.find(target.domain, target.connect);
  return watched.operate(async (surgeon, tracker) => {
    const processes = await look(surgeon, tracker, daemon.now());
    const process = findProcess(watched.name, processes, target.process);
    const options = { limitMs: target.timeout * 1000, dryRun: target.dryRun };
    const key = tracker.keyOf(process);
    return answer(watched, process, await perform({ watched, surgeon, process, key, options }));
  });
}

/** A look of our own: the daemon's last may be a whole interval old. */
async function look(
  { guest }: JournaledSurgeon,
  tracker: Tracker,
  nowMs: number,
): Promise<readonly Process[]> {
  const { processes } = await guest.take({ withoutQueues: true });
  tracker.update(processes, nowMs);
  return processes;
}

async function releaseAll(daemon: Daemon, parameters: Parameters): Promise<ReleaseAllAnswer> {
  const { connect: places, timeout } = read(ALL, parameters);
  const released: EditAnswer[] = [];
  const failures: { domain: string; code: string; message: string }[] = [];
  await Promise.all(
    daemon.behind(places).map(async (watched) => {
      try {
        await watched.search();
      } catch (error) {
        if (!(error instanceof DomschedError)) throw error;
        failures.push({ domain: watched.name, code: error.code, message: error.message });
      }
      for (const key of [...(watched.tracker?.holds.keys() ?? [])]) {
        daemon.verdicts.set(key, 'free');
        try {
          await watched.operate(async (_, tracker) => {
            const process = tracker.process(key);
            if (process === undefined) return;
            released.push(answer(watched, process, await watched.release(key, { limitMs: timeout * 1000 })));
          });
        } catch (error) {
          if (!(error instanceof DomschedError)) throw error;
          failures.push({ domain: watched.name, code: error.code, message: error.message });
        }
      }
    }),
  );
  return { released, failures };
}

async function share(daemon: Daemon, parameters: Parameters): Promise<object> {
  const { domain, connect: places, weight, cap } = read(SHARE, parameters);
  const watched = daemon.find(domain, places);
  const wanted = { ...(weight !== undefined && { weight }), ...(cap !== undefined && { cap }) };
  return watched.operate(({ guest }) => shareOf(guest.domain, wanted));
}

async function ps(daemon: Daemon, parameters: Parameters): Promise<PsAnswer> {
  const { domain, connect: places, pause, threads } = read(PS, parameters);
  const chosen = domain === undefined ? daemon.behind(places) : [daemon.find(domain, places)];
  const rows: PsAnswer['rows'][number][] = [];
  const errors: PsAnswer['errors'][number][] = [];
  for (const watched of chosen) {
    const { guest, tracker } = watched;
    if (guest === undefined) {
      const { code, message } = watched.report().error!;
      errors.push({ domain: watched.name, code, message });
      continue;
    }
    try {
      const { processes } = await guest.take({ pause, threads, withoutQueues: true });
      for (const process of processes) {
        const held = tracker!.holds.has(tracker!.keyOf(process));
        const { address: _, ...plain } = process;
        rows.push({ ...plain, ...(held && { state: 'held' as const }), domain: watched.name });
      }
    } catch (error) {
      if (!(error instanceof DomschedError)) throw error;
      errors.push({ domain: watched.name, code: error.code, message: error.message });
    }
  }
  return { rows, errors };
}

function domains(daemon: Daemon, places: readonly string[]): object[] {
  return daemon.behind(places).map((watched) => {
    const { id, hypervisor, vcpus, error } = watched.report();
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
      schedulers: guest?.layout.kernel.schedulers ?? null,
      ways: watched.ways ?? null,
      error: guest === undefined ? (error ?? null) : null,
    };
  });
}

function status(daemon: Daemon, version: string): object {
  const present = daemon.behind([]);
  return {
    version,
    pid: process.pid,
    intervalMs: daemon.settings.intervalMs,
    ticks: daemon.last?.tick ?? 0,
    domains: present.map((watched) => ({
      id: watched.id,
      name: watched.name,
      attached: watched.guest !== undefined,
      held: watched.tracker?.holds.size ?? 0,
    })),
  };
}

function answer({ name }: WatchedDomain, { pid, comm }: Process, operation: Operation): EditAnswer {
  const { outcome, techniques, attempts, writes, edits } = operation;
  const planned = outcome === 'planned' ? edits.flatMap(describeEdit) : [];
  const pausedUs = Math.round(operation.pausedUs);
  const concerned = {
    ...(operation.members && { members: operation.members }),
    ...(operation.kept > 0 && { kept: operation.kept }),
  };
  return { domain: name, pid, comm, outcome, techniques, attempts, pausedUs, writes, ...concerned, planned };
}

/** @throws DomschedError `usage` */
function read<T extends z.ZodType>(schema: T, parameters: Parameters): z.output<T> {
  const result = schema.safeParse(parameters);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const message = printable(`${issue?.path.join('.')}: ${issue?.message}`);
  throw new DomschedError('usage', `the daemon was asked wrongly: ${message}`, {});
}
