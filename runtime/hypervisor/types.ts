import type { DomschedError } from '../error.ts';
import type { FrameNumber } from './frame.ts';
import type { FrameBatch } from './frame-batch.ts';

export type HypervisorKind = 'qemu' | 'kvm' | 'xen' | 'dump' | 'fake';

/** Identity of a domain. It stays the same while the domain runs, also when the guest reboots. */
export interface DomainIdentity {
  /** Unique on this host, so it tells two domains of one name apart. */
  readonly id: string;
  /** The hypervisor's name for it: QEMU `-name`, xl's name, a dump's file name. */
  readonly name: string;
  readonly hypervisor: HypervisorKind;
  /** The `--connect` value that leads to it. */
  readonly connection: string;
  /** The hypervisor's process that runs it, if there is one. */
  readonly pid?: number;
  /** Start time of that process, see `HostProcess`; a later process with that id has another one. */
  readonly started?: number;
  /** File on this host that its kernel was started from, if the hypervisor's tools tell (Xen). A hint, no proof. */
  readonly kernelFile?: string;
  /** An assumption about its memory that may be wrong, and what to do then; shown when no kernel is found. */
  readonly assumption?: string;
}

export type DomainState = 'running' | 'paused' | 'crashed' | 'shutdown' | 'gone' | 'image';

/** Why a domain stands still by a pause of ours that nobody is about to end. */
export interface StandingPause {
  /** Its process is `stopped` by a signal or a debugger, and goes on from where it was; or is `dead`. */
  readonly by: 'stopped' | 'dead';
  /** Absent where nobody noted it. */
  readonly pid?: number;
  /** About when that process last ran, ms since 1970; absent if the kernel does not tell. */
  readonly since?: number;
  /** It was writing the words of an edit, so that the domain must not go on without it. */
  readonly edit?: true;
}

/** Something that happened to a domain while we looked. */
export type DomainEvent =
  | { readonly type: 'paused' | 'resumed'; readonly byUs: boolean }
  /** The guest starts over, so nothing known about it holds any longer. */
  | { readonly type: 'reset' }
  | { readonly type: 'gone'; readonly reason: string };

/** RAM frames: `count` of them from `first` on. */
export interface FrameRegion<F extends FrameNumber = FrameNumber> {
  readonly first: F;
  readonly count: number;
}

/** Reads frames. It is synchronous because a walk reads thousands of times and no read has to wait. */
export interface FrameReader<F extends FrameNumber = FrameNumber> {
  /** Kind of frame numbers that it takes and that the guest's page tables hold; `machine` for Xen PV. */
  readonly space: 'guest' | 'machine';
  /** Number of physical address bits that entries of the guest's page tables may use. */
  readonly physicalBits: number;
  /** RAM in ascending order, without overlaps. Empty if the hypervisor does not tell (Xen PV). */
  regions(): readonly FrameRegion<F>[];
  /**
   * Frames of a region that the guest has ever used, ascending, for callers that search all of it. Absent if this is
   * unknown or saves nothing.
   */
  filled?(region: FrameRegion<F>): Iterable<FrameRegion<F>>;
  /**
   * Reads all ranges of the batch and sets the status of each; bytes of a failed range are zero.
   * @returns number of ranges that failed
   * @throws DomschedError `domain-gone`, `host-unreachable`: nothing of the batch can be trusted
   */
  read(batch: FrameBatch<F>): number;
}

/** Bytes to write, within one frame. */
export interface FrameWrite<F extends FrameNumber = FrameNumber> {
  readonly frame: F;
  /** Offset of the first byte in the frame. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** A word of an edit, located in the domain's memory, with its old and new value. */
export interface LocatedWrite {
  readonly frame: number;
  readonly offset: number;
  readonly old: Uint8Array;
  readonly new: Uint8Array;
}

/** An edit as words alone. */
export interface WordEdit {
  readonly title: string;
  readonly words: readonly LocatedWrite[];
  /** The guest may continue after any number of the first words. */
  readonly harmlessInParts?: true;
}

/** Writes frames. Only `commit()` and `recover()` of `runtime/edit/` call this: see the write protocol. */
export interface FrameWriter<F extends FrameNumber = FrameNumber> {
  /**
   * Another process writes (`runtime/broker/`): it takes whole edits, under our pause, and {@link write} refuses. All words
   * are written or none.
   * @throws DomschedError as `writeWords()` of `runtime/edit/`
   */
  readonly edit?: (edit: WordEdit) => Promise<void>;
  /**
   * Checks that every range is RAM, then writes them in order.
   * @throws DomschedError `frame-unmapped` before the first byte is written when a range is not RAM; `memory-fault`
   *   with `details.index` of the range that failed: ranges before it are written, the others may or may not be
   */
  write(writes: readonly FrameWrite<F>[]): void;
}

/** Registers of one virtual CPU, 64-bit values unsigned. */
export interface VcpuRegisters {
  /** Index of the vCPU in the hypervisor's count. */
  readonly vcpu: number;
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
  /** Present base of GS: the kernel's in kernel mode, the program's in user mode. */
  readonly gsBase: bigint;
  /** MSR_KERNEL_GS_BASE, which `swapgs` exchanges with `gsBase`. Undefined if the backend cannot read it. */
  readonly kernelGsBase: bigint | undefined;
  /** Base of the task-state segment (TR), which a program cannot change. Undefined if the backend cannot read it. */
  readonly tssBase: bigint | undefined;
  readonly idtBase: bigint;
  /** Size of the IDT in bytes, minus one. */
  readonly idtLimit: number;
  readonly rip: bigint;
  readonly rsp: bigint;
  readonly rflags: bigint;
  /** Current privilege level: 0 kernel, 3 user. For Xen PV the guest's own view. */
  readonly cpl: number;
  /** The vCPU waits in HLT (or is blocked in the hypervisor). Undefined where that is not said: in a dump. */
  readonly halted: boolean | undefined;
}

/** Reads the registers of every vCPU. They belong to one moment only while the domain is paused. */
export interface RegisterReader {
  /**
   * @returns one entry per vCPU that is online, ordered by `vcpu`
   * @throws DomschedError `domain-gone`, `timeout`, `protocol`
   */
  read(): Promise<readonly VcpuRegisters[]>;
}

/**
 * Answers of the hypervisor at one moment of a pause. If two proofs of one guard are equal, the domain stood still
 * between them and nobody moved its memory.
 */
export interface PauseProof {
  /** {@link Domain.generation} of the domain; it changes with any resume, wake-up or reset. */
  readonly generation: number;
  /** The answers verbatim; they show a migration or save that began and ended between two looks. */
  readonly answers: string;
}

/**
 * Keeps a domain paused until it is released. `await using guard = await domain.pause.acquire()` releases on every path
 * out of the block.
 */
export interface PauseGuard extends AsyncDisposable {
  /** Somebody else had paused the domain before our first pause; it will stay paused. */
  readonly foundPaused: boolean;
  /** See {@link Pausable.endsWithUs}. */
  readonly endsWithUs?: true;
  /** False after release, and after somebody else resumed, reset or ended the domain under us. */
  readonly valid: boolean;
  /**
   * Asks the hypervisor now whether the domain has been paused ever since this guard began and no migration or snapshot
   * is under way. {@link valid} knows only what was heard so far; this also hears everything that happened before it.
   * @throws DomschedError `edit-conflict` when it runs or ran meanwhile; `refused` when it stands still for another
   *   reason or its memory is being moved; `domain-gone`, `host-unreachable`, `timeout`, `protocol`
   */
  prove(): Promise<PauseProof>;
  /**
   * Whether nothing at all was heard of the domain since the last proof, even if it was not a resume. Does not wait,
   * and nothing may wait between a proof and this.
   */
  isQuiet(): boolean;
  /**
   * Decides what happens to the domain if our process dies (SIGKILL) under this pause. Normally a watchdog resumes it.
   * With `keep` it stays paused, for moments in which an edit is half written and only the journal can repair it.
   * @param inParts every part of that edit is harmless, so the domain may go on where keeping it paused is costly
   * @throws DomschedError `refused` when it cannot be kept; then nothing may be written
   */
  keepOnDeath(keep: boolean, inParts?: boolean): void;
  /** Gives up all our pauses without resuming: the domain stays paused so that an operator can look at it. */
  abandon(): void;
  /** Gives this pause back. The last one resumes the domain if we paused it. A second call does nothing. */
  release(): Promise<void>;
}

/** What a pause is for. */
export type PauseUse = 'look' | 'edit';

/** Pauses a domain; pauses are counted. */
export interface Pausable {
  /** Pauses held through this domain object. */
  readonly depth: number;
  /**
   * The domain goes on when our process ends, even in the middle of an edit. So only edits of which every prefix is
   * harmless are committed. Absent if a pause can outlive us on request, see {@link PauseGuard.keepOnDeath}.
   */
  readonly endsWithUs?: true;
  /** Description of how it is paused, for people. */
  readonly way?: string;
  /**
   * Resolves when no vCPU runs any more.
   * @param use only a look may pause a domain of which cannot be told whether somebody moves its memory; that pause
   *   proves nothing, so nothing can be written under it
   * @throws DomschedError `domain-gone`, `timeout`, `protocol`; `refused` for an edit, see {@link PauseGuard.prove}
   */
  acquire(use?: PauseUse): Promise<PauseGuard>;
}

/** Share of CPU time that the hypervisor gives a domain. */
export interface DomainShare {
  /** Relative weight; the default of Xen's schedulers is 256. */
  readonly weight: number;
  /** Most CPU time the domain gets, in percent of one CPU; 0 means no cap. */
  readonly cap: number;
}

/** The hypervisor's own scheduler, seen from one domain. */
export interface DomainScheduler {
  /** The hypervisor's name for it: `credit`, `credit2`, … */
  readonly name: string;
  get(): Promise<DomainShare>;
  /** Why {@link set} refuses everything; absent if it does not. */
  readonly readOnly?: string;
  /** Time in which the cap let the domain have no CPU, in ns since some start. Absent if it is not counted. */
  cappedNs?(): number | undefined;
  /**
   * Changes the given parts and leaves the rest.
   * @throws DomschedError `usage` when out of the scheduler's own bounds
   */
  set(share: Partial<DomainShare>): Promise<DomainShare>;
}

/** What the host knows of one vCPU, in ns of CPU time; both only grow. */
export interface VcpuTime {
  /** How long it ran. */
  readonly ranNs: number;
  /** How long it was ready and waited for a CPU of the host. */
  readonly waitedNs: number;
  /** The host's thread that runs it, if there is one. */
  readonly tid?: number;
  /** CPU of the host that it runs on, waits for or last ran on, if the hypervisor tells it and not a thread. */
  readonly cpu?: number;
}

/** The host's own account of a domain's vCPUs, which no guest can change. */
export interface HostClock {
  /** One entry per vCPU, none for an image; undefined if the host does not tell at this moment. Does not wait. */
  read(): readonly VcpuTime[] | undefined;
  /**
   * CPU of the machine that a CPU of this host's kernel is on now, where that kernel runs on a hypervisor itself (Xen's
   * dom0); undefined if nobody tells. Absent where they are the same.
   */
  machineCpu?(cpu: number): number | undefined;
  close(): void;
}

/** Delivers an interrupt to a vCPU. */
export interface Notifier {
  /** `msi` delivers any vector of the vCPU's IDT; `event-channel` (Xen PV) wakes the vCPU and ignores the vector. */
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

/** One virtual machine, or an image of one: an identity, frames and capabilities. */
export interface Domain<F extends FrameNumber = FrameNumber>
  extends Partial<Capabilities<F>>,
    AsyncDisposable {
  readonly identity: DomainIdentity;
  readonly frames: FrameReader<F>;
  /**
   * None of its vCPUs can track indirect branches (CET-IBT), because what runs them cannot. Only domains without
   * readable registers need this; otherwise the registers show it.
   */
  readonly lacksBranchTracking?: boolean;
  /** Absent if the host does not tell how long the vCPUs run. */
  readonly hostClock?: HostClock;
  /**
   * Changes whenever the guest may have run since: when a pause of ours begins, on any resume, on reset, and with every
   * {@link tick} while it runs. Data read under one generation says nothing about another.
   */
  readonly generation: number;
  /** Starts another look at a domain that is not paused. Changes `generation` unless our guard holds a pause. */
  tick(): void;
  state(): Promise<DomainState>;
  /** Why it stands still by a pause of ours that nobody is about to end; undefined if it does not. */
  standing?(): StandingPause | undefined | Promise<StandingPause | undefined>;
  /** Why nothing can be edited in it as it is at present; undefined if it does not know a reason without a pause. */
  editRefusal?(): DomschedError | undefined;
  /** @returns a function that ends the subscription */
  onEvent(listener: (event: DomainEvent) => void): () => void;
  /** Releases everything held, pauses included. A second call does nothing. */
  close(): Promise<void>;
}

/** A domain that certainly has these capabilities, as editing functions require. */
export type DomainWith<C extends CapabilityName, F extends FrameNumber = FrameNumber> = Domain<F> &
  Pick<Capabilities<F>, C>;

/** A domain that certainly has none of those: by its type an image can neither be written nor paused. */
export type ReadOnlyDomain<F extends FrameNumber = FrameNumber> = Domain<F> & {
  readonly pause?: never;
  readonly writeFrames?: never;
  readonly scheduler?: never;
  readonly notify?: never;
};

/** A host's entry for one domain. An error is an entry too, because one bad domain must not hide the others. */
export type DomainListing =
  | {
      readonly identity: DomainIdentity;
      readonly state: DomainState;
      /** Null if only the guest can tell. */
      readonly vcpus: number | null;
      readonly memoryBytes: number;
    }
  | {
      readonly identity: DomainIdentity;
      readonly error: DomschedError;
      /** See {@link Domain.standing}. */
      readonly standing?: StandingPause;
    };

/** A place where domains are. */
export interface Host extends AsyncDisposable {
  readonly hypervisor: HypervisorKind;
  /** The `--connect` value. */
  readonly connection: string;
  /** @throws DomschedError `host-unreachable` when the host itself fails */
  list(): Promise<readonly DomainListing[]>;
  /** Ids of possible domains. None of them is asked, so one that does not answer cannot hold up the others. */
  ids(): readonly string[];
  /**
   * Attaches to a domain by its id; it may return a domain that is already open.
   * @throws DomschedError `domain-not-found`, `host-unreachable`, `timeout`, `protocol`
   */
  open(id: string): Promise<Domain>;
  close(): Promise<void>;
}
