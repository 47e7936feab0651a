import { DomschedError } from '../../error.ts';
import type { DomainState } from '../types.ts';

/** Our interpretation of one of QEMU's run states. */
interface RunState {
  readonly domain: DomainState;
  /** Why a machine in this state must not be edited; null if it may be. */
  readonly refusal: string | null;
  /** A step of some other operation. Such a machine is not even paused, because its state would not be restored. */
  readonly passing?: true;
}

/**
 * Every member of `RunState` (QEMU qapi/run-state.json, the union of 5.2 to 10.0). Only `paused` may be edited:
 * somebody has stopped the machine, each vCPU between two instructions, and only a `cont` ends that. In the other
 * states it may go on by itself (`suspended` by a key or a clock, `io-error` and `save-vm` when they are done), or
 * somebody is moving its memory.
 */
const RUN_STATES: Readonly<Record<string, RunState>> = {
  running: { domain: 'running', refusal: 'runs' },
  paused: { domain: 'paused', refusal: null },
  // The guest is in S3: a key, the real-time clock or a packet wakes it without a RESUME.
  suspended: { domain: 'paused', refusal: 'is suspended (S3); wake it up first' },
  // The gdbstub stopped it at a breakpoint or step; the debugger may be in the middle of anything.
  debug: { domain: 'paused', refusal: 'is being debugged through its gdbstub' },
  // One of its devices failed, and the operation is retried as soon as the machine goes on.
  'io-error': { domain: 'crashed', refusal: 'waits for storage that failed' },
  'internal-error': { domain: 'crashed', refusal: 'stopped with an internal error of QEMU' },
  'guest-panicked': { domain: 'crashed', refusal: 'has panicked' },
  watchdog: { domain: 'paused', refusal: 'was stopped by its watchdog device' },
  shutdown: { domain: 'shutdown', refusal: 'has shut down' },
  // It has not started: firmware and kernel will still be loaded over its memory.
  preconfig: { domain: 'paused', refusal: 'is not configured yet', passing: true },
  prelaunch: { domain: 'paused', refusal: 'was not started yet', passing: true },
  inmigrate: { domain: 'paused', refusal: 'waits for an incoming migration', passing: true },
  'finish-migrate': { domain: 'paused', refusal: 'is being migrated', passing: true },
  postmigrate: { domain: 'gone', refusal: 'was migrated away; look for it on its new host', passing: true },
  'save-vm': { domain: 'paused', refusal: 'is being saved', passing: true },
  'restore-vm': { domain: 'paused', refusal: 'is being restored', passing: true },
  // Its memory is continuously compared with its twin's.
  colo: { domain: 'paused', refusal: 'is one of a pair (COLO)', passing: true },
};

/** State of a later QEMU that we do not know: it does not run, and we must not touch it. */
const UNKNOWN: RunState = { domain: 'paused', refusal: 'is in a state that is not known' };

/**
 * Members of `MigrationStatus` (QEMU qapi/migration.json) in which nothing is under way. In all others, also unknown
 * ones of a later QEMU, memory is being moved: our writes do not mark pages as changed and would be left behind.
 */
const NOT_MIGRATING: ReadonlySet<string> = new Set(['none', 'completed', 'failed', 'cancelled']);

/** Members of `JobType` (QEMU qapi/job.json) that read or replace the machine's memory. */
const SNAPSHOT_JOBS: ReadonlySet<string> = new Set(['snapshot-save', 'snapshot-load']);
/** Members of `JobStatus` in which such a job has ended. */
const JOB_OVER: ReadonlySet<string> = new Set(['aborting', 'concluded', 'null']);

function runStateOf(status: unknown): RunState {
  return typeof status === 'string' && Object.hasOwn(RUN_STATES, status) ? RUN_STATES[status]! : UNKNOWN;
}

/** The domain state for one of QEMU's run states. */
export function stateOf(status: unknown): DomainState {
  return runStateOf(status).domain;
}

/**
 * @param migration status of `query-migrate`; a machine that was never migrated has none
 * @param jobs answer to `query-jobs`
 * @throws DomschedError `refused` while its memory is moved, or a snapshot of it is taken or restored
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

/**
 * Whether `stop` changes something about a machine in this state: a QEMU since 9.0 stops a machine in S3 too, and `cont`
 * brings it back there. All others stand already, and a `cont` would end what somebody else began.
 * @param status undefined if it is not known; then it may have run
 */
export function isStoppable(status: unknown): boolean {
  return status === undefined || status === 'running' || status === 'suspended';
}

/** @throws DomschedError `refused` for a machine between two states, `domain-gone` for one that now runs elsewhere */
export function checkAtRest(domain: string, status: unknown): void {
  const { domain: state, refusal, passing } = runStateOf(status);
  if (passing === undefined) return;
  throw new DomschedError(state === 'gone' ? 'domain-gone' : 'refused', `${domain} ${refusal}`, {
    domain,
    status,
  });
}

/** @throws DomschedError `edit-conflict` for a running machine, `refused` for one that stands still without a pause */
export function checkPaused(domain: string, status: unknown): void {
  checkAtRest(domain, status);
  const { refusal } = runStateOf(status);
  if (refusal === null) return;
  throw new DomschedError(status === 'running' ? 'edit-conflict' : 'refused', `${domain} ${refusal}`, {
    domain,
    status,
  });
}
