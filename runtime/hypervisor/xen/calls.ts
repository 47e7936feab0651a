import koffi from 'koffi';
import { DomschedError } from '../../error.ts';
import { addressOf } from '../process-memory.ts';
import { ERRNO } from './errno.ts';
import { loadLibraries, type XenLibraries } from './libraries.ts';
import {
  DOMAIN_FLAGS,
  DOMAIN_INFO,
  DOMAIN_INFO_SIZES,
  SCHED_CREDIT,
  SHUTDOWN_MASK,
  SHUTDOWN_SHIFT,
  VCPU_INFO,
} from './structures.ts';

/** Buffer size for a structure whose length we do not know, see structures.ts. */
const INFO_ROOM = 1024;
/** Initial content of a buffer; bytes that still have it were not written. */
const POISON = 0xa5;
/** Command XENVER_version (public/version.h), whose result has major in the upper half and minor in the lower. */
const XENVER_VERSION = 0;
/** Above every log level (xentoollog.h), because the libraries' messages would go to the operator's terminal. */
const LOG_NOTHING = 10;
const FIRST_POSSIBLE = 0;
const NO_UUID = '0'.repeat(32);

/** The hypervisor's description of a domain. */
export interface XenDomainInfo {
  readonly domid: number;
  /** 32 hexadecimal digits; all zero for domains made without one. */
  readonly uuid: string;
  /** True for HVM and PVH, false for PV. */
  readonly hvm: boolean;
  readonly dying: boolean;
  readonly paused: boolean;
  /** Reason (SHUTDOWN_*) if it ended or suspended itself. */
  readonly shutdown: number | undefined;
  /** Whether it serves the store to all others. */
  readonly xenstore: boolean;
  readonly pages: number;
  /** CPU time of all its vCPUs together, ns. */
  readonly cpuTimeNs: bigint;
  readonly onlineVcpus: number;
  readonly maxVcpuId: number;
}

export interface XenVcpuInfo {
  readonly online: boolean;
  readonly blocked: boolean;
  readonly ranNs: number;
  /** Physical CPU that it runs on or last ran on. */
  readonly cpu: number;
}

/** A scheduler's parameters of one domain, in the scheduler's units. */
export interface CreditParameters {
  readonly weight: number;
  readonly cap: number;
}

/**
 * Calls into Xen's libraries, with JavaScript arguments and results, and errors as DomschedError. The only state is the
 * handles. Each call is synchronous and takes some microseconds.
 */
export class XenCalls {
  readonly #lib: XenLibraries;
  /** Handles, as numbers: koffi takes one over in a third of the time of a BigInt, and in a sixth of an array's. */
  readonly #xch: number;
  readonly #memory: number;
  readonly #logger: number;
  #model: number | null | undefined;
  readonly #info = new Uint8Array(new ArrayBuffer(INFO_ROOM));
  readonly #view = new DataView(this.#info.buffer);
  readonly #infoAddress = addressOf(this.#info);
  /** The last UUID in words and as text: the same domain is asked for again and again. */
  readonly #uuidWords = new Uint32Array(4);
  #uuid = NO_UUID;
  readonly #vcpu = new Uint8Array(new ArrayBuffer(INFO_ROOM));
  readonly #vcpuView = new DataView(this.#vcpu.buffer);
  readonly #small = new Uint8Array(new ArrayBuffer(INFO_ROOM));
  readonly #smallView = new DataView(this.#small.buffer);
  #closed = false;

  private constructor(lib: XenLibraries, handles: { xch: number; memory: number; logger: number }) {
    this.#lib = lib;
    this.#xch = handles.xch;
    this.#memory = handles.memory;
    this.#logger = handles.logger;
  }

  /**
   * Opens the hypervisor's interfaces and checks that libraries, hypervisor and this program agree on their structures.
   * @param version release of the hypervisor, if already known
   * @param directory directory of the libraries; the loader's own places when left out
   * @throws DomschedError `host-unreachable`, with the reason
   */
  static open(version?: string, directory?: string): XenCalls {
    const lib = loadLibraries(version, directory);
    const libc = koffi.load('libc.so.6');
    const fopen = libc.func('void *fopen(const char *path, const char *mode)');
    const logger = pointer(lib.xtl_createlogger_stdiostream(fopen('/dev/null', 'w'), LOG_NOTHING, 0));
    const xch = pointer(lib.xc_interface_open(logger, logger, 0));
    if (xch === 0) throw cannotOpen('the hypervisor (/dev/xen/privcmd)');
    const memory = pointer(lib.xenforeignmemory_open(logger, 0));
    if (memory === 0) {
      const error = cannotOpen('foreign memory (/dev/xen/privcmd)');
      lib.xc_interface_close(xch);
      throw error;
    }
    const calls = new XenCalls(lib, { xch, memory, logger });
    try {
      calls.#check();
    } catch (error) {
      calls.close();
      throw error;
    }
    return calls;
  }

  /** Release of libxenctrl, such as `4.17`, which equals the hypervisor's. */
  get version(): string {
    return this.#lib.version;
  }

  get libraries(): XenLibraries {
    return this.#lib;
  }

  /**
   * The domain with the lowest id from `first` on.
   * @returns undefined when there is none
   * @throws DomschedError `host-unreachable`
   */
  nextDomain(first: number): XenDomainInfo | undefined {
    const count = this.#lib.xc_domain_getinfolist(this.#xch, first, 1, this.#infoAddress) as number;
    if (count < 0) throw this.#failure('list domains');
    if (count === 0) return undefined;
    return this.#parse();
  }

  /** @returns undefined when there is no such domain */
  domain(domid: number): XenDomainInfo | undefined {
    const found = this.nextDomain(domid);
    return found?.domid === domid ? found : undefined;
  }

  /** Waits until no vCPU of the domain runs. Xen counts pauses. @throws DomschedError `domain-gone`, `protocol` */
  pause(domid: number): void {
    if (this.#lib.xc_domain_pause(this.#xch, domid) !== 0) throw this.#failure('pause', domid);
  }

  /** Takes one pause back. @throws DomschedError `domain-gone`, `protocol` (nothing was paused) */
  unpause(domid: number): void {
    if (this.#lib.xc_domain_unpause(this.#xch, domid) !== 0) throw this.#failure('unpause', domid);
  }

  /** Word size of a PV guest in bytes. @throws DomschedError `domain-gone`, `protocol` */
  guestWidth(domid: number): number {
    if (this.#lib.xc_domain_get_guest_width(this.#xch, domid, this.#small) !== 0) {
      throw this.#failure('ask for the word size of', domid);
    }
    return this.#smallView.getUint32(0, true);
  }

  /** @returns undefined if the vCPU does not exist */
  vcpu(domid: number, vcpu: number): XenVcpuInfo | undefined {
    if (this.#lib.xc_vcpu_getinfo(this.#xch, domid, vcpu, this.#vcpu) !== 0) {
      // ESRCH may mean the vCPU or the domain.
      const errno = koffi.errno();
      if (errno === ERRNO.ESRCH && this.domain(domid) !== undefined) return undefined;
      throw this.#failure('ask for a vCPU of', domid, errno);
    }
    return {
      online: this.#vcpu[VCPU_INFO.online] !== 0,
      blocked: this.#vcpu[VCPU_INFO.blocked] !== 0,
      ranNs: Number(this.#vcpuView.getBigUint64(VCPU_INFO.cpu_time, true)),
      cpu: this.#vcpuView.getUint32(VCPU_INFO.cpu, true),
    };
  }

  /**
   * Reads the registers of a PV guest's vCPU.
   * @param into 5168 bytes
   * @returns false for a vCPU that was never started
   */
  pvContext(domid: number, vcpu: number, into: Uint8Array): boolean {
    if (this.#lib.xc_vcpu_getcontext(this.#xch, domid, vcpu, into) === 0) return true;
    if (koffi.errno() === ERRNO.ENODATA) return false;
    throw this.#failure('read registers of', domid);
  }

  /**
   * Reads one record that the hypervisor would save for an HVM or PVH guest.
   * @param into buffer of the record's length
   * @returns false for a vCPU that is down
   * @throws DomschedError `domain-gone`; `protocol`, also when the record is longer than `into`
   */
  hvmContext(domid: number, type: number, vcpu: number, into: Uint8Array): boolean {
    const { xc_domain_hvm_getcontext_partial } = this.#lib;
    if (xc_domain_hvm_getcontext_partial(this.#xch, domid, type, vcpu, into, into.length) === 0) return true;
    const errno = koffi.errno();
    if (errno === ERRNO.ENODATA || errno === ERRNO.ENOENT) return false;
    // Error of a domain that is being torn down.
    if (errno === ERRNO.EINVAL && (this.domain(domid)?.dying ?? true)) throw gone(domid);
    throw this.#failure('read registers of', domid, errno);
  }

  /**
   * Whether a record has this size, tested by asking for it with one byte less. (The library copies the whole buffer,
   * so we cannot see how much was written.)
   */
  hvmContextHasSize(domid: number, type: number, vcpu: number, size: number): boolean {
    const { xc_domain_hvm_getcontext_partial } = this.#lib;
    const room = new Uint8Array(new ArrayBuffer(Math.max(size, INFO_ROOM)));
    const enough = xc_domain_hvm_getcontext_partial(this.#xch, domid, type, vcpu, room, size) === 0;
    if (!enough) return false;
    const less = xc_domain_hvm_getcontext_partial(this.#xch, domid, type, vcpu, room, size - 1);
    return less !== 0 && koffi.errno() === ERRNO.ENOBUFS;
  }

  /** Number of the scheduler of the default CPU pool (XEN_SCHEDULER_*). */
  schedulerId(): number {
    if (this.#lib.xc_sched_id(this.#xch, this.#small) !== 0) throw this.#failure('ask for the scheduler');
    return this.#smallView.getInt32(0, true);
  }

  /** @returns undefined when the domain is under another scheduler */
  getCredit(domid: number, scheduler: 'credit' | 'credit2'): CreditParameters | undefined {
    const get =
      scheduler === 'credit' ? this.#lib.xc_sched_credit_domain_get : this.#lib.xc_sched_credit2_domain_get;
    if (get(this.#xch, domid, this.#small) !== 0) {
      if (koffi.errno() === ERRNO.EINVAL) return undefined;
      throw this.#failure('read the share of', domid);
    }
    return {
      weight: this.#smallView.getUint16(SCHED_CREDIT.weight, true),
      cap: this.#smallView.getUint16(SCHED_CREDIT.cap, true),
    };
  }

  /** @throws DomschedError `usage` when the scheduler refuses the values */
  setCredit(domid: number, scheduler: 'credit' | 'credit2', { weight, cap }: CreditParameters): void {
    const set =
      scheduler === 'credit' ? this.#lib.xc_sched_credit_domain_set : this.#lib.xc_sched_credit2_domain_set;
    this.#smallView.setUint16(SCHED_CREDIT.weight, weight, true);
    this.#smallView.setUint16(SCHED_CREDIT.cap, cap, true);
    if (set(this.#xch, domid, this.#small) === 0) return;
    if (koffi.errno() === ERRNO.EINVAL) {
      throw new DomschedError('usage', `${scheduler} takes no weight ${weight} with cap ${cap}`, {
        domid,
        weight,
        cap,
      });
    }
    throw this.#failure('set the share of', domid);
  }

  /**
   * Maps frames of a domain at an address in our memory, replacing anything there.
   * @param frames at least `count` frames; those that failed have their errno in `errors` and must not be touched
   * @returns 0, or the errno when nothing was mapped and nothing is left at `address`
   */
  map(
    domid: number,
    address: bigint,
    writable: boolean,
    frames: BigUint64Array,
    errors: Int32Array,
    count: number,
  ): number {
    const protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    const { xenforeignmemory_map2 } = this.#lib;
    const mapped = pointer(
      xenforeignmemory_map2(this.#memory, domid, address, protection, MAP_FIXED, count, frames, errors),
    );
    if (mapped === Number(address)) return 0;
    return koffi.errno() || ERRNO.EINVAL;
  }

  /** Whether libxendevicemodel exists and can be opened. */
  get canInject(): boolean {
    return this.#deviceModel() !== null;
  }

  /** Delivers a message-signalled interrupt to an HVM or PVH guest. @throws DomschedError `domain-gone`, `protocol` */
  injectMsi(domid: number, address: number, data: number): void {
    const handle = this.#deviceModel();
    if (handle === null) throw this.#failure('send an interrupt to', domid);
    if (this.#lib.deviceModel!.xendevicemodel_inject_msi(handle, domid, address, data) < 0) {
      throw this.#failure('send an interrupt to', domid);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#model) this.#lib.deviceModel!.xendevicemodel_close(this.#model);
    this.#lib.xenforeignmemory_close(this.#memory);
    this.#lib.xc_interface_close(this.#xch);
  }

  #deviceModel(): number | null {
    if (this.#model === undefined) {
      const { deviceModel } = this.#lib;
      const handle =
        deviceModel === undefined ? 0 : pointer(deviceModel.xendevicemodel_open(this.#logger, 0));
      this.#model = handle === 0 ? null : handle;
    }
    return this.#model;
  }

  /** Checks that we read structures right, with dom0, which always exists and whose facts are known. */
  #check(): void {
    const version = this.#lib.xc_version(this.#xch, XENVER_VERSION, null) as number;
    const running = `${version >>> 16}.${version & 0xffff}`;
    if (version < 0 || running !== this.#lib.version) {
      throw new DomschedError(
        'host-unreachable',
        `Xen ${running} runs, but the libraries found are of ${this.#lib.version}: install those of the hypervisor`,
        { running, libraries: this.#lib.version },
      );
    }
    this.#info.fill(POISON);
    const dom0 = this.nextDomain(FIRST_POSSIBLE);
    const size = written(this.#info);
    const sane =
      dom0?.domid === 0 &&
      !dom0.dying &&
      dom0.pages > 0 &&
      dom0.onlineVcpus > 0 &&
      dom0.maxVcpuId + 1 >= dom0.onlineVcpus &&
      dom0.cpuTimeNs > 0n;
    if (sane && DOMAIN_INFO_SIZES.includes(size)) return;
    throw new DomschedError(
      'host-unreachable',
      `Xen ${running} describes domains in ${size} bytes that this program cannot read; it knows ${DOMAIN_INFO_SIZES.join(' and ')}`,
      { version: running, size },
    );
  }

  #parse(): XenDomainInfo {
    const view = this.#view;
    const flags = view.getUint32(DOMAIN_INFO.flags, true);
    return {
      domid: view.getUint16(DOMAIN_INFO.domain, true),
      uuid: this.#parseUuid(),
      hvm: (flags & DOMAIN_FLAGS.hvm) !== 0,
      dying: (flags & DOMAIN_FLAGS.dying) !== 0,
      paused: (flags & DOMAIN_FLAGS.paused) !== 0,
      shutdown:
        (flags & DOMAIN_FLAGS.shutdown) === 0 ? undefined : (flags >>> SHUTDOWN_SHIFT) & SHUTDOWN_MASK,
      xenstore: (flags & DOMAIN_FLAGS.xenstore) !== 0,
      pages: Number(view.getBigUint64(DOMAIN_INFO.tot_pages, true)),
      cpuTimeNs: view.getBigUint64(DOMAIN_INFO.cpu_time, true),
      onlineVcpus: view.getUint32(DOMAIN_INFO.nr_online_vcpus, true),
      maxVcpuId: view.getUint32(DOMAIN_INFO.max_vcpu_id, true),
    };
  }

  #parseUuid(): string {
    const { handle } = DOMAIN_INFO;
    const words = this.#uuidWords;
    let same = true;
    for (let i = 0; i < words.length; i++) {
      const word = this.#view.getUint32(handle + 4 * i, true);
      same &&= word === words[i];
      words[i] = word;
    }
    if (!same) this.#uuid = Buffer.from(this.#info.subarray(handle, handle + 16)).toString('hex');
    return this.#uuid;
  }

  /** Turns the errno of the last call into an error. */
  #failure(what: string, domid?: number, errno = koffi.errno()): DomschedError {
    const whom = domid === undefined ? '' : ` domain ${domid}`;
    const details = { errno, ...(domid !== undefined && { domid }) };
    if (errno === ERRNO.ESRCH && domid !== undefined) return gone(domid);
    if (errno === ERRNO.EPERM || errno === ERRNO.EACCES) {
      return new DomschedError(
        'host-unreachable',
        `Xen does not let us ${what}${whom}: run as root in dom0`,
        details,
      );
    }
    return new DomschedError('protocol', `Xen: cannot ${what}${whom}: error ${errno}`, details);
  }
}

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_FIXED = 0x10;

/** Addresses of programs have 47 bits. */
function pointer(value: unknown): number {
  return value === null || value === undefined ? 0 : Number(BigInt.asUintN(64, BigInt(value as bigint)));
}

function gone(domid: number): DomschedError {
  return new DomschedError('domain-gone', `domain ${domid} has ended`, { domid });
}

function cannotOpen(what: string): DomschedError {
  const errno = koffi.errno();
  return new DomschedError('host-unreachable', `cannot open ${what}: error ${errno}; run as root in dom0`, {
    errno,
  });
}

/** Number of bytes written to a buffer that was filled with POISON, which is never a structure's last byte. */
function written(bytes: Uint8Array): number {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === POISON) end -= 1;
  return end;
}
