import { MOST_STILL, type PlacedMachine } from '../broker/protocol.ts';
import type { LoggedBytes } from '../edit/log.ts';
import { DomschedError } from '../error.ts';
import type { GuestFrame } from '../hypervisor/frame.ts';
import { LiveDomain, stateUnlessGone } from '../hypervisor/live-domain.ts';
import { PauseCounter } from '../hypervisor/pause-counter.ts';
import { ThreadTimes } from '../hypervisor/thread-times.ts';
import type {
  Domain,
  DomainIdentity,
  DomainState,
  FrameReader,
  FrameWriter,
  Pausable,
  WordEdit,
} from '../hypervisor/types.ts';
import type { ProcessRam } from '../hypervisor/vmm/attach-ram.ts';
import { identityOf } from '../hypervisor/vmm/domain.ts';
import type { MachineProcess } from '../hypervisor/vmm/machine-process.ts';
import { machineThreads } from '../hypervisor/vmm/vcpu-threads.ts';
import type { BrokerClient } from './client.ts';
import type { HandedView } from './view.ts';

/** A machine of which we read the memory, and to which the broker does the rest. */
export class BrokeredDomain extends LiveDomain implements Domain<GuestFrame> {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<GuestFrame>;
  readonly writeFrames: FrameWriter<GuestFrame>;
  readonly pause: Pausable;
  readonly hostClock: ThreadTimes;
  readonly lacksBranchTracking: boolean;
  /** What the broker found and repaired when it opened the machine. */
  readonly recovery: PlacedMachine['recovery'];
  /** Words that show whether the guest has run, for the record of the next edit. */
  still: readonly LoggedBytes[] = [];
  readonly #client: BrokerClient;
  readonly #machine: number;
  readonly #ram: ProcessRam;
  readonly #view: HandedView;
  readonly #counter: PauseCounter;
  #closed = false;

  /** @param opened closed with the domain */
  constructor(
    client: BrokerClient,
    process: MachineProcess,
    opened: { readonly machine: number; readonly ram: ProcessRam; readonly view: HandedView },
    { recovery, endsWithUs, way, lacksBranchTracking }: PlacedMachine,
  ) {
    super();
    this.#client = client;
    this.#machine = opened.machine;
    this.#ram = opened.ram;
    this.#view = opened.view;
    this.identity = identityOf(process);
    this.recovery = recovery;
    this.lacksBranchTracking = lacksBranchTracking;
    this.hostClock = new ThreadTimes(process.pid, () => machineThreads(process.pid).vcpus);
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
        const stopped = await client.ask({ op: 'pause', machine, use });
        this.mayHaveRun();
        return stopped;
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
  }

  protected override lookAgain(): void {
    this.#ram.renew();
  }

  async state(): Promise<DomainState> {
    if (this.#closed) return 'gone';
    return stateUnlessGone(() => this.#client.ask({ op: 'state', machine: this.#machine }));
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
