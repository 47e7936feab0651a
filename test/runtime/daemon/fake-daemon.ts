import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import pino, { type Logger } from 'pino';
import { Daemon, type Settings } from '../../../runtime/daemon/daemon.ts';
import type { Fleet } from '../../../runtime/fleet/fleet.ts';
import type { LookLimits } from '../../../runtime/guest/look-budget.ts';
import { Hosts } from '../../../runtime/hypervisor/connect.ts';
import { FakeHost } from '../../../runtime/hypervisor/fake/host.ts';
import { combine, type PlacedPolicy } from '../../../runtime/policy/combine.ts';
import { idleOnly } from '../../../runtime/policy/idle-only.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import { Journals } from '../../../runtime/surgeon/journaled-surgeon.ts';
import type { Tick } from '../../../runtime/tick/tick.ts';
import { O1_KERNEL, SyntheticGuest, type SyntheticTask } from '../guest/synthetic.ts';

/** A guest with O(1) run queues on one CPU: ready tasks can be spliced out of them and in again. */
export async function fakeGuest(name: string, ...tasks: Partial<SyntheticTask>[]): Promise<SyntheticGuest> {
  const whole = tasks.map((task, i) => ({ pid: 10 + i, cpu: 0, ppid: 1, ...task })) as SyntheticTask[];
  const init: SyntheticTask = { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' };
  const guest = await SyntheticGuest.make({ kernel: O1_KERNEL, cpus: 1, name, tasks: [init, ...whole] });
  for (const task of guest.tasks.values()) guest.put(task, 'task_struct', 'time_slice', 25);
  return guest;
}

/** Lets a task use the CPU for a while. */
export function run(guest: SyntheticGuest, pid: number, ms: number): void {
  add(guest, guest.tasks.get(pid)!, 'task_struct', 'sched_time', BigInt(Math.round(ms * 1e6)));
  for (const queue of guest.queues) add(guest, queue, 'rq', 'nr_switches', 2n);
}

function add(guest: SyntheticGuest, address: bigint, struct: string, member: string, value: bigint): void {
  const { offset } = guest.layout.field(struct, member);
  const before = Buffer.from(guest.image.load(guest.physical(address) + offset, 8)).readBigUInt64LE();
  guest.put(address, struct, member, before + value);
}

/** Whether a task is in a run queue. */
export function isQueued(guest: SyntheticGuest, pid: number): boolean {
  const { offset } = guest.layout.field('task_struct', 'array');
  return (
    Buffer.from(guest.image.load(guest.physical(guest.tasks.get(pid)!) + offset, 8)).readBigUInt64LE() !== 0n
  );
}

/** `backup*` runs only when nothing else does. */
export const BACKUP_LAST: PlacedPolicy = {
  name: 'backups',
  policy: idleOnly() as PlacedPolicy['policy'],
  select: selector([{ comm: 'backup*' }]),
  windows: [],
  limit: undefined,
};

/** Pids of the two. */
export const BACKUP = 10;
export const SERVER = 10;

/** One with a backup that is ready to run, and one with a server that sleeps. */
export async function twoGuests() {
  const batch = await fakeGuest(
    'batch',
    { comm: 'backup', state: 'ready' },
    { comm: 'cron', state: 'sleeping' },
  );
  const web = await fakeGuest('web', { comm: 'server', state: 'sleeping' });
  return { batch, web };
}

export interface FakeDaemonOptions {
  readonly entries?: readonly PlacedPolicy[];
  readonly directory?: string;
  readonly limits?: LookLimits;
  readonly fleet?: Fleet;
  readonly log?: Logger;
  /** Where its monotonic clock starts. */
  readonly nowMs?: number;
}

/** A daemon over fake domains, whose ticks a test makes. */
export class FakeDaemon implements AsyncDisposable {
  readonly daemon: Daemon;
  readonly journals: Journals;
  readonly ticks: Tick[] = [];
  nowMs: number;
  readonly host: FakeHost;
  readonly directory: string;
  readonly #own: boolean;

  private constructor(
    guests: readonly SyntheticGuest[],
    directory: string,
    own: boolean,
    {
      entries = [BACKUP_LAST],
      limits,
      fleet,
      nowMs = 1_000,
      log = pino({ level: 'silent' }),
    }: FakeDaemonOptions,
  ) {
    this.nowMs = nowMs;
    this.directory = directory;
    this.#own = own;
    this.journals = new Journals(directory);
    this.host = new FakeHost(guests.map(({ domain }) => domain));
    this.daemon = new Daemon(
      { ...this.settings(entries), ...(limits && { limits }), ...(fleet && { fleet }) },
      log,
      (tick) => this.ticks.push(tick),
      this.journals,
      () => this.nowMs,
    );
  }

  static async of(guests: readonly SyntheticGuest[], options: FakeDaemonOptions = {}): Promise<FakeDaemon> {
    const directory = options.directory ?? (await mkdtemp(path.join(tmpdir(), 'domsched-daemon-')));
    return new FakeDaemon(guests, directory, options.directory === undefined, options);
  }

  /** Until all domains are attached to and it is known what ran. */
  async start(): Promise<void> {
    for (let i = 0; i < 3; i++) await this.tick();
  }

  /** Until the backup is held, for the server of a guest has run. */
  async startHolding(web: SyntheticGuest): Promise<void> {
    await this.start();
    run(web, SERVER, 300);
    await this.tick();
  }

  settings(entries: readonly PlacedPolicy[]): Settings {
    return {
      intervalMs: 500,
      idleIntervalMs: 2_000,
      discoveryMs: 0,
      techniques: undefined,
      decide: combine(entries),
      origins: false,
      hosts: new Hosts([this.host]),
      observers: [],
    };
  }

  /** One tick, half a second after the last, and all that it set going. */
  async tick(): Promise<Tick> {
    await this.daemon.settled();
    this.nowMs += 500;
    this.daemon.tick();
    await this.daemon.settled();
    return this.ticks.at(-1)!;
  }

  /** Comms of held processes, by the journal. */
  async held(): Promise<string[]> {
    return (await this.journals.held.list()).map(({ comm }) => comm).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.daemon.close();
    if (this.#own) await rm(this.directory, { recursive: true, force: true });
  }
}
