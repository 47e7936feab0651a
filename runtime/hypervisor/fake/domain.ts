import { DomschedError } from '../../error.ts';
import { FRAME_SIZE, type FrameNumber } from '../frame.ts';
import { FRAME_STATUS, type FrameBatch } from '../frame-batch.ts';
import { PauseCounter } from '../pause-counter.ts';
import type {
  Domain,
  DomainEvent,
  DomainIdentity,
  DomainScheduler,
  DomainShare,
  DomainState,
  FrameReader,
  FrameRegion,
  FrameWrite,
  FrameWriter,
  HostClock,
  Notifier,
  Pausable,
  RegisterReader,
  VcpuRegisters,
  VcpuTime,
} from '../types.ts';
import { FrameImage } from './image.ts';
import { Recorder } from './recorder.ts';

export interface FakeDomainOptions<F extends FrameNumber> {
  name?: string;
  id?: string;
  /** RAM as ranges of frames, ascending; 16 MiB from frame 0 when left out. */
  ram?: readonly { first: number; count: number }[];
  image?: FrameImage;
  vcpus?: readonly Partial<VcpuRegisters>[];
  share?: DomainShare;
  space?: FrameReader<F>['space'];
  physicalBits?: number;
  /** Somebody else has already paused it. */
  paused?: boolean;
  /** Its pause ends with us. */
  pauseEndsWithUs?: true;
}

const ZERO_REGISTERS: Omit<VcpuRegisters, 'vcpu'> = {
  cr0: 0x8005_0033n,
  cr3: 0n,
  cr4: 0x6b0n,
  efer: 0xd01n,
  gsBase: 0n,
  kernelGsBase: 0n,
  tssBase: 0n,
  idtBase: 0n,
  idtLimit: 0xfff,
  rip: 0n,
  rsp: 0n,
  rflags: 2n,
  cpl: 0,
  halted: false,
};

/**
 * A domain in our own memory with every capability, for tests. It records each call, can fail the n-th, and its image
 * can be compared byte by byte.
 */
export class FakeDomain<F extends FrameNumber = FrameNumber> implements Domain<F> {
  readonly identity: DomainIdentity;
  readonly recorder = new Recorder();
  /** The guest's memory; replace it to reboot into another kernel. */
  image: FrameImage;
  /** Result of {@link registers}; a test may change it. */
  vcpus: VcpuRegisters[];
  /** The last value that a guard passed to `keepOnDeath`. */
  keptOnDeath = false;
  readonly frames: FrameReader<F>;
  readonly writeFrames: FrameWriter<F>;
  readonly registers: RegisterReader;
  readonly pause: Pausable;
  readonly scheduler: DomainScheduler;
  readonly notify: Notifier;
  /** What the host has counted; a test may change it. Undefined: the host does not tell. */
  times: VcpuTime[] | undefined;
  readonly hostClock: HostClock = { read: () => this.times, close: () => {} };
  #ram: readonly FrameRegion<F>[];
  #counter: PauseCounter;
  #share: DomainShare;
  #state: DomainState;
  #generation = 0;
  /** Status of a migration; a test may change it. */
  migration = 'none';
  #listeners = new Set<(event: DomainEvent) => void>();

  constructor(options: FakeDomainOptions<F> = {}) {
    const name = options.name ?? 'fake';
    this.identity = { id: options.id ?? name, name, hypervisor: 'fake', connection: 'fake:' };
    this.image = options.image ?? new FrameImage();
    this.vcpus = (options.vcpus ?? [{}]).map((some, vcpu) => ({ ...ZERO_REGISTERS, vcpu, ...some }));
    this.#ram = (options.ram ?? [{ first: 0, count: 4096 }]) as readonly FrameRegion<F>[];
    this.#share = options.share ?? { weight: 256, cap: 0 };
    this.#state = options.paused ? 'paused' : 'running';
    this.frames = {
      space: options.space ?? 'guest',
      physicalBits: options.physicalBits ?? 46,
      regions: () => this.#ram,
      read: (batch) => this.#read(batch),
    };
    this.writeFrames = { write: (writes) => this.#write(writes) };
    this.registers = {
      read: async () => {
        this.recorder.note({ kind: 'registers' });
        this.#checkAlive();
        return this.vcpus.map((vcpu) => ({ ...vcpu }));
      },
    };
    this.#counter = new PauseCounter({
      ...(options.pauseEndsWithUs && { endsWithUs: true }),
      stop: async () => {
        this.recorder.note({ kind: 'stop' });
        this.#checkAlive();
        this.#generation += 1;
        const foundPaused = this.#state === 'paused';
        this.#state = 'paused';
        if (!foundPaused) this.#emit({ type: 'paused', byUs: true });
        return { foundPaused };
      },
      prove: async () => {
        this.recorder.note({ kind: 'prove' });
        this.#checkAlive();
        const { name } = this.identity;
        if (this.#state === 'running') throw new DomschedError('edit-conflict', `${name} runs`);
        if (this.#state !== 'paused') throw new DomschedError('refused', `${name} is ${this.#state}`);
        if (this.migration === 'active') throw new DomschedError('refused', `${name} is being migrated`);
        return { generation: this.#generation, answers: this.migration };
      },
      isQuiet: () => this.#state === 'paused',
      resume: async () => {
        this.recorder.note({ kind: 'resume' });
        this.keptOnDeath = false;
        this.#checkAlive();
        this.#state = 'running';
        this.#generation += 1;
        this.#emit({ type: 'resumed', byUs: true });
      },
      keepOnDeath: (keep) => {
        this.keptOnDeath = keep;
      },
    });
    this.pause = this.#counter;
    this.scheduler = {
      name: 'fake',
      get: async () => {
        this.recorder.note({ kind: 'getShare' });
        return this.#share;
      },
      set: async (share) => {
        this.recorder.note({ kind: 'setShare', ...share });
        this.#share = { ...this.#share, ...share };
        return this.#share;
      },
    };
    this.notify = {
      kind: 'msi',
      inject: async (vcpu, vector) => {
        this.recorder.note({ kind: 'inject', vcpu, vector });
        this.#checkAlive();
      },
    };
  }

  get generation(): number {
    return this.#generation;
  }

  tick(): void {
    if (!this.#counter.held) this.#generation += 1;
  }

  async state(): Promise<DomainState> {
    this.recorder.note({ kind: 'state' });
    return this.#state;
  }

  onEvent(listener: (event: DomainEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.recorder.note({ kind: 'close' });
    if (this.#state !== 'gone') await this.#counter.releaseAll();
    this.#listeners.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Somebody else resumes the domain under us. */
  resumeByOther(): void {
    this.#state = 'running';
    this.#generation += 1;
    this.#counter.dissolve();
    this.#emit({ type: 'resumed', byUs: false });
  }

  /** Somebody else pauses the domain. */
  stopByOther(): void {
    this.#state = 'paused';
    this.#emit({ type: 'paused', byUs: false });
  }

  /** The guest reboots, into another image if given. */
  reset(image?: FrameImage): void {
    if (image !== undefined) this.image = image;
    this.#generation += 1;
    this.#counter.invalidate();
    this.#emit({ type: 'reset' });
  }

  /** The domain ends; every later call throws `domain-gone`. */
  destroy(): void {
    this.#state = 'gone';
    this.#generation += 1;
    this.#counter.dissolve();
    this.#emit({ type: 'gone', reason: 'destroyed' });
  }

  #read(batch: FrameBatch<F>): number {
    this.#checkAlive();
    let failed = 0;
    const silent = this.recorder.idle;
    for (let i = 0; i < batch.count; i++) {
      const frame = batch.frames[i]!;
      const offset = batch.offsets[i]!;
      const length = batch.lengths[i]!;
      if (!silent) this.recorder.note({ kind: 'read', frame, offset, length });
      const position = batch.positions[i]!;
      if (this.#isRam(frame)) {
        this.image.copy(frame, offset, length, batch.bytes, position);
        batch.status[i] = FRAME_STATUS.ok;
      } else {
        batch.bytes.fill(0, position, position + length);
        batch.status[i] = FRAME_STATUS.absent;
        failed += 1;
      }
    }
    return failed;
  }

  #write(writes: readonly FrameWrite<F>[]): void {
    this.#checkAlive();
    for (const [index, { frame, offset, bytes }] of writes.entries()) {
      if (this.#isRam(frame) && offset >= 0 && offset + bytes.length <= FRAME_SIZE) continue;
      throw new DomschedError(
        'frame-unmapped',
        `${this.identity.name}: frame ${frame} is not RAM; nothing was written`,
        {
          domain: this.identity.name,
          frame,
          index,
        },
      );
    }
    for (const [index, { frame, offset, bytes }] of writes.entries()) {
      try {
        this.recorder.note({ kind: 'write', frame, offset, bytes: bytes.slice() });
      } catch (cause) {
        throw new DomschedError(
          'memory-fault',
          `${this.identity.name}: write ${index} of ${writes.length} failed`,
          { domain: this.identity.name, frame, index },
          { cause },
        );
      }
      this.image.store(frame * FRAME_SIZE + offset, bytes);
    }
  }

  #isRam(frame: number): boolean {
    for (const { first, count } of this.#ram) if (frame >= first && frame < first + count) return true;
    return false;
  }

  #checkAlive(): void {
    if (this.#state !== 'gone') return;
    throw new DomschedError('domain-gone', `${this.identity.name} has ended`, { domain: this.identity.name });
  }

  #emit(event: DomainEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
