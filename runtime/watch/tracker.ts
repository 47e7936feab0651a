import { cpuTime } from '../guest/cpu-time.ts';
import type { Origin } from '../guest/origin.ts';
import type { Process } from '../guest/process.ts';
import { processKey } from '../guest/process-key.ts';
import type { ProcessView } from '../policy/world.ts';
import type { TickProcess } from '../tick/tick.ts';
import { Column, type Placed } from './column.ts';
import type { Hold } from './hold.ts';
import { STATES } from './state.ts';

/** Id of the domain that the process with this key is in. */
export function domainOfKey(key: string): string {
  return key.slice(0, key.lastIndexOf('@'));
}

/** What we remember of a process between looks. */
interface TrackedProcess extends Placed {
  readonly key: string;
  process: Process;
  view: ProcessView;
  /** What the view was made from, and what a tick was told of it. */
  viewProcess: Process | undefined;
  viewOrigin: Origin | undefined;
  told:
    | { readonly view: ProcessView; readonly hold: Hold | undefined; readonly process: TickProcess }
    | undefined;
  /** CPU time reported so far, in ns. */
  toldNs: number;
  /** Time in run queues reported so far, in ns. */
  queuedNs: number;
  /** The part of it since the last look; undefined if its kernel does not tell. */
  waitedNs: number | undefined;
  origin: Origin;
  /** When its origin was last read. */
  originMs: number;
  /** Number of the look that last saw it. */
  seen: number;
  /** It rests: a look that finds the very same process, and nothing done to it, learns nothing. */
  settled: boolean;
}

/** A process that no longer exists. */
export interface Gone {
  readonly key: string;
  readonly process: Process;
}

export interface TrackerOptions {
  readonly domain: string;
  readonly domainName: string;
  /** Distinguishes this boot of the domain from others. */
  readonly boot: string;
  /** Reads a process's origin; undefined if nobody needs it. */
  readonly origin?: ((process: Process) => Origin) | undefined;
}

/** A process may change its program (exec), group or user: its origin is read again after this time. */
const ORIGIN_LASTS_MS = 5_000;

/** Follows the processes of one domain over time: CPU time between two looks, and how long each has been held. */
export class Tracker {
  /** Our holds by process. */
  readonly holds = new Map<string, Hold>();
  readonly #options: TrackerOptions;
  readonly #entries = new Map<number, TrackedProcess>();
  readonly #byKey = new Map<string, TrackedProcess>();
  #look = 0;
  #lookedMs: number | undefined;
  /** The kernel accounts time in run queues: it may be built to and not do so. */
  #accountsQueues = false;
  /** The processes of the last look and their entries, in its order: most are the same at the next. */
  readonly #listed: (Process | undefined)[] = [];
  readonly #order: TrackedProcess[] = [];
  /** Processes with different numbers in this look. */
  #seen = 0;
  /** All entries rest, so nothing changes while nothing runs. */
  #rests = false;
  readonly #views = new Column<TrackedProcess, ProcessView>(({ view }) => view);
  /** What a tick is told while nobody is held. */
  readonly #told = new Column<TrackedProcess, TickProcess>((entry) => tell(entry, undefined));

  constructor(options: TrackerOptions) {
    this.#options = options;
  }

  /** Distinguishes this boot of the domain from others. */
  get boot(): string {
    return this.#options.boot;
  }

  /** Number of looks so far. The first cannot tell what ran. */
  get looks(): number {
    return this.#look;
  }

  process(key: string): Process | undefined {
    return this.#byKey.get(key)?.process;
  }

  /** Keys of all processes. */
  keys(): Iterable<string> {
    return this.#byKey.keys();
  }

  view(key: string): ProcessView | undefined {
    return this.#byKey.get(key)?.view;
  }

  /** The process with this number, as the last look found it. */
  viewOf(pid: number): ProcessView | undefined {
    return this.#entries.get(pid)?.view;
  }

  /** Records that the process with this number was at work just before the last look. */
  rouse(pid: number): void {
    const entry = this.#entries.get(pid);
    if (entry !== undefined) this.#show(entry, { ...entry.view, roused: true });
  }

  keyOf(process: Pick<Process, 'pid' | 'address' | 'startTimeNs'>): string {
    const entry = this.#entries.get(process.pid);
    if (entry !== undefined && isSame(entry.process, process)) return entry.key;
    const { domain, boot } = this.#options;
    return processKey(domain, boot, process);
  }

  /** Adds a look. @returns processes that no longer exist */
  update(processes: readonly Process[], nowMs: number): Gone[] {
    this.#look += 1;
    this.#rests = false;
    const learns = !this.#accountsQueues && processes.some(({ queuedNs = 0 }) => queuedNs > 0);
    this.#accountsQueues ||= learns;
    const elapsedMs = nowMs - (this.#lookedMs ?? nowMs);
    this.#lookedMs = nowMs;
    const gone: Gone[] = [];
    this.#seen = 0;
    // Origins change without a trace in the process; who is held is told at every look for how long.
    const mayRest = this.#options.origin === undefined && this.holds.size === 0 && !learns;
    for (let i = 0; i < processes.length; i++) {
      const process = processes[i]!;
      const entry = this.#listed[i] === process ? this.#order[i]! : undefined;
      if (mayRest && entry?.settled && entry.process === process) {
        if (entry.seen !== this.#look) this.#seen += 1;
        entry.seen = this.#look;
        continue;
      }
      this.#listed[i] = process;
      this.#order[i] = this.#see(process, nowMs, elapsedMs, gone);
    }
    this.#listed.length = processes.length;
    this.#order.length = processes.length;
    if (this.#seen === this.#entries.size) return gone;
    for (const [pid, entry] of this.#entries) {
      if (entry.seen === this.#look) continue;
      this.#entries.delete(pid);
      this.#forget(entry, gone);
    }
    return gone;
  }

  /** Records that nothing ran since the last look. */
  still(nowMs: number): void {
    this.#look += 1;
    this.#lookedMs = nowMs;
    if (this.#rests && this.holds.size === 0) return;
    this.#rests = true;
    for (const entry of this.#entries.values()) {
      if (entry.waitedNs !== undefined) entry.waitedNs = 0;
      const held = this.holds.get(entry.key);
      const { ranNs, waitedNs, heldMs, roused } = entry.view;
      if (!ranNs && !waitedNs && !roused && held === undefined && heldMs === undefined) continue;
      this.#show(entry, this.#describe(entry, 0, nowMs));
    }
  }

  /** Assumes that every process continued as before, when there was no time to look. The next look corrects this. */
  estimate(nowMs: number): void {
    for (const entry of this.#entries.values()) {
      const { ranNs } = entry.view;
      entry.toldNs += ranNs;
      entry.queuedNs += entry.waitedNs ?? 0;
      this.#show(entry, this.#describe(entry, ranNs, nowMs));
    }
  }

  /** The same array as before if no process has changed. */
  views(): readonly ProcessView[] {
    return this.#views.values(this.#entries);
  }

  /** As the last look found them. */
  processes(): Process[] {
    return Array.from(this.#entries.values(), ({ process }) => process);
  }

  /** The same array as before if no process has changed, and nobody is held or was. */
  tickProcesses(): readonly TickProcess[] {
    if (this.holds.size === 0) return this.#told.values(this.#entries);
    this.#told.forget();
    return Array.from(this.#entries.values(), (entry) => tell(entry, this.holds.get(entry.key)));
  }

  #see(process: Process, nowMs: number, elapsedMs: number, gone: Gone[]): TrackedProcess {
    const cpuNs = cpuTime(process);
    let entry = this.#entries.get(process.pid);
    if (entry?.seen !== this.#look) this.#seen += 1;
    if (entry !== undefined && entry.process !== process && !isSame(entry.process, process)) {
      this.#forget(entry, gone);
      entry = undefined;
    }
    const before = entry?.process.state;
    if (entry === undefined) {
      const key = this.keyOf(process);
      // A process that is new since the last look has used all its CPU time since then.
      const toldNs = this.#look === 1 ? cpuNs : 0;
      const queuedNs = this.#look === 1 ? (process.queuedNs ?? 0) : 0;
      const none = {
        ...{ view: undefined as never, viewProcess: undefined, viewOrigin: undefined, told: undefined },
        ...{ waitedNs: undefined, origin: {}, originMs: -Infinity, settled: false, place: -1 },
      };
      entry = { key, process, toldNs, queuedNs, seen: 0, ...none };
      this.#entries.set(process.pid, entry);
      this.#byKey.set(key, entry);
      this.#views.forget();
      this.#told.forget();
    }
    const { origin } = this.#options;
    if (origin !== undefined && !process.kernelThread) {
      const changed = process.comm !== entry.process.comm;
      if (changed || nowMs - entry.originMs > ORIGIN_LASTS_MS) {
        entry.origin = origin(process);
        entry.originMs = nowMs;
      }
    }
    entry.process = process;
    entry.seen = this.#look;
    const ranNs = Math.max(0, cpuNs - entry.toldNs);
    entry.toldNs = Math.max(cpuNs, entry.toldNs);
    if (this.#accountsQueues && process.queuedNs !== undefined) {
      // A stay in a queue is accounted when it ends.
      const stays = ranNs === 0 && process.state === 'ready' && before === 'ready';
      entry.waitedNs = Math.max(0, process.queuedNs - entry.queuedNs, stays ? elapsedMs * 1e6 : 0);
      entry.queuedNs = process.queuedNs;
    }
    if (!this.#isAsDescribed(entry, ranNs)) this.#show(entry, this.#describe(entry, ranNs, nowMs));
    // A stay in a queue grows although nothing changes.
    else entry.settled = process.state !== 'ready' && !entry.waitedNs;
    return entry;
  }

  #show(entry: TrackedProcess, view: ProcessView): void {
    entry.view = view;
    entry.settled = false;
    this.#rests = false;
    this.#views.change(entry);
    this.#told.change(entry);
  }

  /** Whether a description would be equal to the last one: most processes rest most of the time. */
  #isAsDescribed(entry: TrackedProcess, ranNs: number): boolean {
    const { view, viewProcess, viewOrigin, process, origin, waitedNs, key } = entry;
    return (
      view !== undefined &&
      ranNs === 0 &&
      view.ranNs === 0 &&
      view.heldMs === undefined &&
      view.roused === undefined &&
      view.waitedNs === waitedNs &&
      viewOrigin === origin &&
      !this.holds.has(key) &&
      (viewProcess === process || isShown(view, process))
    );
  }

  #describe(entry: TrackedProcess, ranNs: number, nowMs: number): ProcessView {
    const { process, key, origin } = entry;
    const { domain, domainName } = this.#options;
    const hold = this.holds.get(key);
    entry.viewProcess = process;
    entry.viewOrigin = origin;
    return {
      key,
      domain,
      domainName,
      pid: process.pid,
      ppid: process.ppid,
      comm: process.comm,
      ...origin,
      state: hold !== undefined && STATES[process.state] !== 'ended' ? 'held' : STATES[process.state],
      nice: process.nice,
      kernelThread: process.kernelThread,
      cpuNs: cpuTime(process),
      ranNs,
      cpu: process.cpu,
      ...(entry.waitedNs !== undefined && { waitedNs: entry.waitedNs }),
      ...(hold !== undefined && { heldMs: nowMs - hold.sinceMs }),
    };
  }

  #forget(entry: TrackedProcess, gone: Gone[]): void {
    entry.settled = false;
    this.#views.forget();
    this.#told.forget();
    this.#byKey.delete(entry.key);
    this.holds.delete(entry.key);
    gone.push({ key: entry.key, process: entry.process });
  }
}

/** Whether a view has all that it would take from this process. */
function isShown(view: ProcessView, process: Process): boolean {
  return (
    view.state === STATES[process.state] &&
    view.cpuNs === cpuTime(process) &&
    view.cpu === process.cpu &&
    view.nice === process.nice &&
    view.ppid === process.ppid &&
    view.comm === process.comm &&
    view.kernelThread === process.kernelThread
  );
}

/** What a tick is told of a process; the same object while nothing of it changes. */
function tell(entry: TrackedProcess, hold: Hold | undefined): TickProcess {
  const { told } = entry;
  if (told !== undefined && told.view === entry.view && told.hold === hold) return told.process;
  const process = tickProcess(entry.view, entry.process.cpu, hold);
  entry.told = { view: entry.view, hold, process };
  return process;
}

function tickProcess(view: ProcessView, cpu: number, hold: Hold | undefined): TickProcess {
  const { key, pid, ppid, comm, state, nice, kernelThread, cpuNs, ranNs } = view;
  const seen = { key, pid, ppid, comm, state, nice, kernelThread, cpuNs, ranNs, cpu };
  if (hold === undefined) return seen;
  const { policy, reason, since } = hold;
  return { ...seen, held: { policy, reason, since } };
}

function isSame(
  a: Pick<Process, 'address' | 'startTimeNs'>,
  b: Pick<Process, 'address' | 'startTimeNs'>,
): boolean {
  return a.address === b.address && a.startTimeNs === b.startTimeNs;
}
