import type { DomschedError } from '../error.ts';
import type { FrameNumber } from './frame.ts';
import type { FrameBatch } from './frame-batch.ts';

export type HypervisorKind = 'qemu' | 'kvm' | 'xen' | 'dump' | 'fake';

/** Who a domain is. Stays the same while it runs; a reboot of the guest does not change it. */
export interface DomainIdentity {
  /** Unique on this host: what tells two domains of one name apart. */
  readonly id: string;
  /** As the hypervisor names it: QEMU `-name`, xl's name, a dump's file name. */
  readonly name: string;
  readonly hypervisor: HypervisorKind;
  /** The `--connect` value that leads to it. */
  readonly connection: string;
  /** Process of the hypervisor that runs it, where there is one. */
  readonly pid?: number;
  /** Of that process, see `HostProcess`: a later one of that id is another. */
  readonly started?: number;
  /** File on this host that its kernel was started from, where the hypervisor's tools say so (Xen). A hint, no proof. */
  readonly kernelFile?: string;
  /** What is taken for granted of its memory and may be wrong, and what to do then: for when no kernel is found in it. */
  readonly assumption?: string;
}

export type DomainState = 'running' | 'paused' | 'crashed' | 'shutdown' | 'gone' | 'image';

/** Something that happened to a domain while we looked. */
export type DomainEvent =
  | { readonly type: 'paused' | 'resumed'; readonly byUs: boolean }
  /** The guest starts over: nothing known of it holds any longer. */
  | { readonly type: 'reset' }
  | { readonly type: 'gone'; readonly reason: string };

/** Frames that are RAM: `count` of them from `first` on. */
export interface FrameRegion<F extends FrameNumber = FrameNumber> {
  readonly first: F;
  readonly count: number;
}

/** Reads frames. Synchronous, since a walk reads thousands of times and none of them waits. */
export interface FrameReader<F extends FrameNumber = FrameNumber> {
  /** Which frame numbers this takes, and thereby which the guest's page tables hold: `machine` for Xen PV. */
  readonly space: 'guest' | 'machine';
  /** Physical address bits that entries of the guest's page tables may use. */
  readonly physicalBits: number;
  /** RAM in ascending order, without overlaps. Empty where the hypervisor doesn't tell (Xen PV). */
  regions(): readonly FrameRegion<F>[];
  /**
   * Frames of a region that the guest has ever used, ascending; for who searches all of it. Absent where nobody can tell,
   * or nothing is saved by it.
   */
  filled?(region: FrameRegion<F>): Iterable<FrameRegion<F>>;
  /**
   * Reads all ranges of the batch and sets the status of each; bytes of a failed range are zero.
   * @returns how many ranges failed
   * @throws DomschedError `domain-gone`, `host-unreachable`: nothing of the batch can be trusted
   */
  read(batch: FrameBatch<F>): number;
}

/** Bytes to write, within one frame. */
export interface FrameWrite<F extends FrameNumber = FrameNumber> {
  readonly frame: F;
  /** Of the first byte in the frame. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Writes frames. Only `commit()` and `recover()` of `runtime/edit/` call this: see the write protocol. */
export interface FrameWriter<F extends FrameNumber = FrameNumber> {
  /**
   * Checks that every range is RAM, then writes them in order.
   * @throws DomschedError `frame-unmapped` before the first byte is written when a range is not RAM;
   *   `memory-fault` with `details.index` of the range that failed: those before it are written, it and those
   *   after it are not known to be
   */
  write(writes: readonly FrameWrite<F>[]): void;
}

/** Registers of one virtual CPU, 64-bit values unsigned. */
export interface VcpuRegisters {
  /** Index of the vCPU as the hypervisor counts. */
  readonly vcpu: number;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  /** Base of GS as it is now: the kernel's in kernel mode, the program's in user mode. */
  readonly gsBase: bigint;
  /** MSR_KERNEL_GS_BASE: what `swapgs` would exchange with `gsBase`. Undefined where the backend can't tell. */
  readonly kernelGsBase: bigint | undefined;
  /** Base of the task-state segment (TR), which a program cannot change. Undefined where the backend can't tell. */
  readonly tssBase: bigint | undefined;
  readonly idtBase: bigint;
  /** Bytes of the IDT minus one. */
  readonly idtLimit: number;
  readonly rip: bigint;
  readonly rsp: bigint;
  readonly rflags: bigint;
  /** Current privilege level: 0 kernel, 3 user. For Xen PV the guest's own view. */
  readonly cpl: number;
  /** Waits in HLT (or is blocked in the hypervisor). */
  readonly halted: boolean;
}

/** Reads the registers of every vCPU. Meaningful together only while the domain is paused. */
export interface RegisterReader {
  /**
   * @returns one entry per vCPU that is online, ordered by `vcpu`
   * @throws DomschedError `domain-gone`, `timeout`, `protocol`
   */
  read(): Promise<readonly VcpuRegisters[]>;
}

/**
 * What the hypervisor said at one moment of a pause. Where two of one guard are the same, the domain stood still between
 * them, and nobody moved its memory.
 */
export interface PauseProof {
  /** The domain's, see {@link Domain.generation}: another one after a resume, a wake-up or a reset by anybody. */
  readonly generation: number;
  /** Its answers word for word: a migration or a save that began and ended between two looks shows in them. */
  readonly answers: string;
}

/**
 * Keeps a domain paused until it is released. `await using guard = await domain.pause.acquire()` releases on
 * every path out of the block.
 */
export interface PauseGuard extends AsyncDisposable {
  /** Someone else had paused the domain before the first of our pauses; it will stay so. */
  readonly foundPaused: boolean;
  /** See {@link Pausable.endsWithUs}. */
  readonly endsWithUs?: true;
  /** False once released, and when someone else resumed, reset or ended the domain under us. */
  readonly valid: boolean;
  /**
   * Asks the hypervisor now: the domain stands still because somebody paused it, has done so since this guard began,
   * and neither migration nor snapshot is under way. What is known by {@link valid} is what was heard so far; this hears
   * all that happened before it.
   * @throws DomschedError `edit-conflict` when it runs or ran meanwhile; `refused` when it stands still for another
   *   reason or its memory is being moved; `domain-gone`, `host-unreachable`, `timeout`, `protocol`
   */
  prove(): Promise<PauseProof>;
  /**
   * Looks, without waiting, whether anything was heard of the domain since the last proof: false when something was, be
   * it none of a resume. Between a proof and this nothing may wait.
   */
  isQuiet(): boolean;
  /**
   * What becomes of the domain should our process die (SIGKILL) under this pause: normally it is resumed by a
   * watchdog. With `keep` it stays paused, for the moments in which an edit is half written and only the journal
   * can put it right.
   * @param inParts every part of that edit is harmless: where keeping costs the guest something, it may go on
   * @throws DomschedError `refused` when it cannot be kept: then nothing may be written
   */
  keepOnDeath(keep: boolean, inParts?: boolean): void;
  /** Gives all our pauses up without resuming: the domain stays paused for an operator to look at. */
  abandon(): void;
  /** Gives this pause back; the last one resumes the domain if we paused it. A second call does nothing. */
  release(): Promise<void>;
}

/** Pauses a domain, counted. */
export interface Pausable {
  /** Pauses held through this domain object. */
  readonly depth: number;
  /**
   * The domain goes on when our process ends, at whatever point of an edit: only edits of which every prefix is harmless
   * are committed. Absent where a pause outlives us when that is asked for, see {@link PauseGuard.keepOnDeath}.
   */
  readonly endsWithUs?: true;
  /** How it is paused, for people. */
  readonly way?: string;
  /**
   * Resolves when no vCPU runs any more.
   * @throws DomschedError `domain-gone`, `timeout`, `protocol`
   */
  acquire(): Promise<PauseGuard>;
}

/** Share of CPU time that the hypervisor gives a domain. */
export interface DomainShare {
  /** Relative weight; the default of Xen's schedulers is 256. */
  readonly weight: number;
  /** Percent of one CPU that the domain gets at most; 0 is no cap. */
  readonly cap: number;
}

/** The hypervisor's own scheduler, seen from one domain. */
export interface DomainScheduler {
  /** `credit`, `credit2`, … as the hypervisor calls it. */
  readonly name: string;
  get(): Promise<DomainShare>;
  /**
   * Changes what is given and leaves the rest.
   * @throws DomschedError `usage` when out of the scheduler's own bounds
   */
  set(share: Partial<DomainShare>): Promise<DomainShare>;
}

/** Delivers an interrupt to a vCPU. */
export interface Notifier {
  /** `msi`: any vector of the vCPU's IDT; `event-channel`: Xen PV, wakes the vCPU, the vector is not used. */
  readonly kind: 'msi' | 'event-channel';
  /**
   * @param vcpu index as in {@link VcpuRegisters}
   * @param vector 32..255
   * @throws DomschedError `timeout`, `protocol`, `domain-gone`
   */
  inject(vcpu: number, vector: number): Promise<void>;
}

/** Capabilities that a domain may have beyond being read. */
export interface Capabilities<F extends FrameNumber = FrameNumber> {
  readonly pause: Pausable;
  readonly registers: RegisterReader;
  readonly writeFrames: FrameWriter<F>;
  readonly scheduler: DomainScheduler;
  readonly notify: Notifier;
}

export type CapabilityName = keyof Capabilities;

/** One virtual machine, or an image of one: an identity, its frames, and the capabilities it has. */
export interface Domain<F extends FrameNumber = FrameNumber>
  extends Partial<Capabilities<F>>,
    AsyncDisposable {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<F>;
  /**
   * None of its vCPUs can track indirect branches (CET-IBT), since what runs them cannot. Said by a domain whose registers
   * cannot be read, which tell it otherwise.
   */
  readonly lacksBranchTracking?: boolean;
  /**
   * Changes whenever the guest may have run since: when a pause of ours begins, on every resume by anyone, on reset, and
   * with every {@link tick} while it runs. What was read under one generation says nothing about another.
   */
  readonly generation: number;
  /** Starts another look at a domain that is not paused. Changes `generation` unless paused under our guard. */
  tick(): void;
  state(): Promise<DomainState>;
  /** @returns a function that ends the subscription */
  onEvent(listener: (event: DomainEvent) => void): () => void;
  /** Releases everything held, pauses included. A second call does nothing. */
  close(): Promise<void>;
}

/** A domain that surely has these capabilities: what an editing function asks for. */
export type DomainWith<C extends CapabilityName, F extends FrameNumber = FrameNumber> = Domain<F> &
  Pick<Capabilities<F>, C>;

/** A domain that surely has none of those: an image can neither be written nor paused, by its type. */
export type ReadOnlyDomain<F extends FrameNumber = FrameNumber> = Domain<F> & {
  readonly pause?: never;
  readonly writeFrames?: never;
  readonly scheduler?: never;
  readonly notify?: never;
};

/** What a host knows of one domain. One bad domain must not hide the others, so an error is an entry too. */
export type DomainListing =
  | {
      readonly identity: DomainIdentity;
      readonly state: DomainState;
      readonly vcpus: number;
      readonly memoryBytes: number;
    }
  | { readonly identity: DomainIdentity; readonly error: DomschedError };

/** A place where domains are. */
export interface Host extends AsyncDisposable {
  readonly hypervisor: HypervisorKind;
  /** The `--connect` value. */
  readonly connection: string;
  /** @throws DomschedError `host-unreachable` when the host itself fails */
  list(): Promise<readonly DomainListing[]>;
  /** Ids of what may be domains, without asking any of them: one that does not answer holds up no other. */
  ids(): readonly string[];
  /**
   * Attaches to a domain by its id; of one that is open already it may give that.
   * @throws DomschedError `domain-not-found`, `host-unreachable`, `timeout`, `protocol`
   */
  open(id: string): Promise<Domain>;
  close(): Promise<void>;
}
