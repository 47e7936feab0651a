import { DomschedError } from '../../error.ts';
import type { DomainState } from '../types.ts';

/** What one of QEMU's run states means to us. */
interface RunState {
  readonly domain: DomainState;
  /** Why a machine in this state is not edited; null where it may be. */
  readonly refusal: string | null;
  /** A step of something else: it is not even paused, for it would not be found again as it was. */
  readonly passing?: true;
}

/**
 * Every member of `RunState` (QEMU qapi/run-state.json, the union of 5.2 to 10.0). One alone may be edited: somebody has
 * stopped the machine, between two instructions of each vCPU, and only somebody's `cont` ends that. Whoever stops it for
 * a reason of the machine's own goes on by itself (`suspended` by a key or a clock, `io-error` and `save-vm` when they are
 * done), or is in the hands of somebody who moves its memory.
 */
const RUN_STATES: Readonly<Record<string, RunState>> = {
  running: { domain: 'running', refusal: 'runs' },
  paused: { domain: 'paused', refusal: null },
  // The guest is in S3: a key, the real-time clock or a packet wakes it up, without a RESUME.
  suspended: { domain: 'paused', refusal: 'is suspended (S3); wake it up first' },
  // Stopped by the gdbstub at a breakpoint or a step: whoever debugs it may be in the middle of anything.
  debug: { domain: 'paused', refusal: 'is being debugged through its gdbstub' },
  // A device of it failed, and the operation is tried again as soon as it goes on.
  'io-error': { domain: 'crashed', refusal: 'waits for storage that failed' },
  'internal-error': { domain: 'crashed', refusal: 'stopped with an internal error of QEMU' },
  'guest-panicked': { domain: 'crashed', refusal: 'has panicked' },
  watchdog: { domain: 'paused', refusal: 'was stopped by its watchdog device' },
  shutdown: { domain: 'shutdown', refusal: 'has shut down' },
  // Not started yet: firmware and kernel are still to be loaded over its memory.
  preconfig: { domain: 'paused', refusal: 'is not configured yet', passing: true },
  prelaunch: { domain: 'paused', refusal: 'was not started yet', passing: true },
  inmigrate: { domain: 'paused', refusal: 'waits for an incoming migration', passing: true },
  'finish-migrate': { domain: 'paused', refusal: 'is being migrated', passing: true },
  postmigrate: { domain: 'gone', refusal: 'was migrated away; look for it on its new host', passing: true },
  'save-vm': { domain: 'paused', refusal: 'is being saved', passing: true },
  'restore-vm': { domain: 'paused', refusal: 'is being restored', passing: true },
  // Its memory is compared with its twin's all the time.
  colo: { domain: 'paused', refusal: 'is one of a pair (COLO)', passing: true },
};

/** What a later QEMU may know: not running, and not ours to touch. */
const UNKNOWN: RunState = { domain: 'paused', refusal: 'is in a state that is not known' };

/**
 * Members of `MigrationStatus` (QEMU qapi/migration.json) in which nothing is under way. In any other, one of a later
 * QEMU included, memory is: what we write does not mark a page as changed, and would stay behind.
 */
const NOT_MIGRATING: ReadonlySet<string> = new Set(['none', 'completed', 'failed', 'cancelled']);

/** Members of `JobType` (QEMU qapi/job.json) that read or replace the machine's memory. */
const SNAPSHOT_JOBS: ReadonlySet<string> = new Set(['snapshot-save', 'snapshot-load']);
/** Members of `JobStatus` in which such a job is over. */
const JOB_OVER: ReadonlySet<string> = new Set(['aborting', 'concluded', 'null']);

function runStateOf(status: unknown): RunState {
  return typeof status === 'string' && Object.hasOwn(RUN_STATES, status) ? RUN_STATES[status]! : UNKNOWN;
}

/** Domain state for one of QEMU's run states. */
export function stateOf(status: unknown): DomainState {
  return runStateOf(status).domain;
}

/**
 * @param migration status of `query-migrate`; a machine that was never migrated has none
 * @param jobs answer to `query-jobs`
 * @throws DomschedError `refused` while its memory is on its way, or a snapshot of it is taken or put back
 */
export function checkNotMoving(domain: string, migration: unknown, jobs: unknown): void {
  if (migration !== undefined && !(typeof migration === 'string' && NOT_MIGRATING.has(migration))) {
    throw new DomschedError('refused', `${domain} is being migrated or saved; try again when that is done`, {
      domain,
      status: migration,
    });
  }
  for (const job of Array.isArray(jobs) ? jobs : []) {
    const { type, status } = job as { type?: unknown; status?: unknown };
    if (!SNAPSHOT_JOBS.has(String(type)) || JOB_OVER.has(String(status))) continue;
    const message = `${domain}: a snapshot of it is being taken or put back; try again when that is done`;
    throw new DomschedError('refused', message, { domain, job: type, status });
  }
}

/** @throws DomschedError `refused` for a machine between two states, `domain-gone` for one that runs elsewhere now */
export function checkAtRest(domain: string, status: unknown): void {
  const { domain: state, refusal, passing } = runStateOf(status);
  if (passing === undefined) return;
  throw new DomschedError(state === 'gone' ? 'domain-gone' : 'refused', `${domain} ${refusal}`, {
    domain,
    status,
  });
}

/** @throws DomschedError `edit-conflict` for a machine that runs, `refused` for one that stands still by no pause */
export function checkPaused(domain: string, status: unknown): void {
  checkAtRest(domain, status);
  const { refusal } = runStateOf(status);
  if (refusal === null) return;
  throw new DomschedError(status === 'running' ? 'edit-conflict' : 'refused', `${domain} ${refusal}`, {
    domain,
    status,
  });
}
