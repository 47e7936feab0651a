/**
 * domsched as a library: hosts and their domains, the processes of guests, kernels' layouts (those of the package are
 * `domsched/layouts/<release>`), the daemon's ticks and traces of them, and
 * what a policy of one's own is made of. Edits go through the commands and the daemon, which keep account of them.
 */
export type {
  Control,
  DaemonControl,
  DaemonStatus,
  DomainEntry,
  EditAnswer,
  Failure,
  ProcessRow,
  PsAnswer,
  ReleaseAllAnswer,
  Ticks,
  TicksOptions,
} from './control/control.ts';
export { openControl, openDaemon } from './control/open.ts';
export type { Options } from './control/schema.ts';
export { DomschedError, type DomschedErrorCode, type ExitCode } from './error.ts';
export type { FleetHost, FleetStatus } from './fleet/status.ts';
export { Guest, type Snapshot, type SnapshotOptions, type TakeOptions } from './guest/guest.ts';
export type { Process } from './guest/process.ts';
export type { QueuedTask, RunQueue } from './guest/run-queue.ts';
export type { ProcessState } from './guest/state.ts';
export { connect, connectAll, type Hosts } from './hypervisor/connect.ts';
export type { Domain, DomainIdentity, DomainListing, Host } from './hypervisor/types.ts';
export { type ReaderOf, reader, type ValueOf } from './layout/reader.ts';
export { type KnownKernel, kernelOf, knownKernels } from './layout/registry.ts';
export type { Action, DomainView, Policy, ProcessView, World } from './policy/world.ts';
export type {
  Observer,
  Tick,
  TickAction,
  TickDomain,
  TickHold,
  TickProcess,
} from './tick/tick.ts';
export type { TraceHeader } from './trace/line.ts';
export { openTrace, type Trace } from './trace/read.ts';
export { openDomain } from './watch/choose.ts';
