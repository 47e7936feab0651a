import { setTimeout as sleep } from 'node:timers/promises';
import { type BrokerAnswers, MOST_STILL, type PlacedMachine } from '../broker/protocol.ts';
import type { LoggedBytes } from '../edit/log.ts';
import { DomschedError } from '../error.ts';
import type { GuestFrame } from '../hypervisor/frame.ts';
import { LiveDomain, stateUnlessGone } from '../hypervisor/live-domain.ts';
import { PauseCounter } from '../hypervisor/pause-counter.ts';
import { cgroupScheduler } from '../hypervisor/qemu/cgroup-scheduler.ts';
import { threadsByOwnNumber } from '../hypervisor/qemu/qemu-process.ts';
import { parseRegisters } from '../hypervisor/qemu/registers.ts';
import { ThreadTimes } from '../hypervisor/thread-times.ts';
import type {
  Domain,
  DomainIdentity,
  DomainScheduler,
  DomainState,
  FrameReader,
  FrameWriter,
  Pausable,
  PauseUse,
  RegisterReader,
  StandingPause,
  WordEdit,
} from '../hypervisor/types.ts';
import type { ProcessRam } from '../hypervisor/vmm/attach-ram.ts';
import { machineThreads } from '../hypervisor/vmm/vcpu-threads.ts';
import type { BrokerClient } from './client.ts';
import { errorOf } from './failure.ts';
import { MonitoredRam } from './monitored-ram.ts';
import { readOnlyShare } from './read-only-share.ts';
import type { HandedView } from './view.ts';

/** How often to ask for a pause of a machine that has to run on first, and how long to wait for it at most. */
const PAUSE_ATTEMPTS = 3;
const LONGEST_WAIT_MS = 10_000;

/** A machine of which we read the memory, and to which the broker does the rest. */
export class BrokeredDomain extends LiveDomain implements Domain<GuestFrame> {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<GuestFrame>;
  readonly writeFrames: FrameWriter<GuestFrame>;
  readonly pause: Pausable;
  /** Of a machine with a monitor. */
  readonly registers?: RegisterReader;
  readonly hostClock: ThreadTimes;
  readonly scheduler?: DomainScheduler;
  readonly lacksBranchTracking: boolean;
  /** What the broker found and repaired when it opened the machine. */
  readonly recovery: PlacedMachine['recovery'];
  /** Words that show whether the guest has run, for the record of the next edit. */
  still: readonly LoggedBytes[] = [];
  readonly #client: BrokerClient;
  readonly #machine: number;
  readonly #ram: ProcessRam | MonitoredRam;
  readonly #view: HandedView;
  readonly #counter: PauseCounter;
  readonly #refusal: DomschedError | undefined;
  #closed = false;

  /** @param opened closed with the domain */
  constructor(
    client: BrokerClient,
    identity: DomainIdentity & { readonly pid: number },
    opened: {
      readonly machine: number;
      readonly ram: ProcessRam | MonitoredRam;
      readonly view: HandedView;
    },
    { recovery, endsWithUs, way, lacksBranchTracking, threads, refusal }: PlacedMachine,
  ) {
    super();
    this.#client = client;
    this.#machine = opened.machine;
    this.#ram = opened.ram;
    this.#view = opened.view;
    this.identity = identity;
    this.recovery = recovery;
    this.#refusal = refusal === null ? undefined : errorOf(refusal);
    this.lacksBranchTracking = lacksBranchTracking;
    const { pid } = identity;
    this.hostClock = new ThreadTimes(pid, () =>
      threads === null ? machineThreads(pid).vcpus : threadsByOwnNumber(pid, threads),
    );
    const scheduler = cgroupScheduler(pid);
    if (scheduler !== undefined) this.scheduler = readOnlyShare(scheduler);
    this.frames = opened.ram;
    this.writeFrames = {
      write: () => {
        throw new DomschedError('refused', 'the broker writes whole edits alone', {});
      },
      edit: (edit) => this.#edit(edit),
    };
    const machine = opened.machine;
    this.#counter = new PauseCounter({
      ...(endsWithUs && { endsWithUs: true }),
      way: `a broker without which nothing is written; ${way ?? ''}`,
      asks: true,
      stop: async (use) => {
        this.#ram.renew();
        const { foundPaused, heard } = await this.#stop(use);
        this.mayHaveRun();
        if (heard !== null) await this.#hear(heard);
        return { foundPaused };
      },
      prove: async () => ({
        generation: this.generation,
        answers: await client.ask({ op: 'prove', machine }),
      }),
      // The broker itself looks, just before it writes.
      isQuiet: () => true,
      resume: async () => {
        this.mayHaveRun();
        await client.ask({ op: 'resume', machine });
      },
    });
    this.pause = this.#counter;
    const { ram } = opened;
    if (ram instanceof MonitoredRam) {
      this.registers = { read: async () => parseRegisters(await client.ask({ op: 'registers', machine })) };
      ram.onReset(() => {
        this.mayHaveRun();
        this.emit({ type: 'reset' });
      });
    }
  }

  protected override lookAgain(): void {
    this.#ram.renew();
  }

  async state(): Promise<DomainState> {
    if (this.#closed) return 'gone';
    return stateUnlessGone(() => this.#client.ask({ op: 'state', machine: this.#machine }));
  }

  /** What the broker sees of it, who alone may look. */
  async standing(): Promise<StandingPause | undefined> {
    const standing = await this.#client.ask({ op: 'standing', machine: this.#machine }).catch(notGone);
    return standing ?? undefined;
  }

  editRefusal(): DomschedError | undefined {
    return this.#refusal;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#counter.releaseAll().catch(() => undefined);
    // A broker that has ended has let go of it.
    await this.#client.ask({ op: 'close', machine: this.#machine }).catch(() => undefined);
    this.#ram.close();
    this.#view.close();
    this.hostClock.close();
    this.forgetListeners();
  }

  /** A machine that has been paused for too much of its time runs on first. */
  async #stop(use: PauseUse): Promise<BrokerAnswers['pause']> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#client.ask({ op: 'pause', machine: this.#machine, use });
      } catch (error) {
        const waitMs = error instanceof DomschedError ? error.details.waitMs : undefined;
        if (typeof waitMs !== 'number' || attempt === PAUSE_ATTEMPTS) throw error;
        await sleep(Math.min(waitMs, LONGEST_WAIT_MS));
      }
    }
  }

  /** What was read before the monitor told of other memory is not what is edited. */
  async #hear(heard: { resets: number; ramVersion: number }): Promise<void> {
    if (!(this.#ram instanceof MonitoredRam)) return;
    try {
      await this.#ram.hear(heard);
    } catch (error) {
      await this.#client.ask({ op: 'resume', machine: this.#machine }).catch(() => undefined);
      throw error;
    }
  }

  async #edit({ title, words, harmlessInParts }: WordEdit): Promise<void> {
    const still = this.still.slice(0, MOST_STILL);
    this.still = [];
    const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
    try {
      await this.#client.ask({
        op: 'edit',
        machine: this.#machine,
        title: title.slice(0, 256),
        words: words.map((word) => ({ ...word, old: hex(word.old), new: hex(word.new) })),
        still: [...still],
        ...(harmlessInParts && { harmlessInParts }),
      });
    } catch (error) {
      const unknown =
        error instanceof DomschedError && (error.code === 'host-unreachable' || error.code === 'timeout');
      if (!unknown) throw error;
      const message = `${title}: whether it was written is not known: ${error.message}`;
      throw new DomschedError('edit-torn', message, { edit: title, restored: false }, { cause: error });
    }
  }
}

/** A machine that has ended does not stand still. @throws whatever else it is */
function notGone(error: unknown): undefined {
  if (error instanceof DomschedError && error.code === 'domain-gone') return undefined;
  throw error;
}
