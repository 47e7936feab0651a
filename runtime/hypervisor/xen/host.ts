import path from 'node:path';
import { DomschedError } from '../../error.ts';
import { FRAME_SIZE } from '../frame.ts';
import type { Domain, DomainIdentity, DomainListing, Host } from '../types.ts';
import { XenCalls, type XenDomainInfo } from './calls.ts';
import { lookForDom0 } from './dom0.ts';
import { stateOf, XenDomain, type XenDomainParts } from './domain.ts';
import { LeftPauses, pausesFolder } from './left-pause.ts';
import { SavingWatch } from './saving.ts';
import { XenStore } from './store.ts';
import { SCHEDULERS } from './structures.ts';
import { XenWatchdog } from './watchdog.ts';

/** End of the domain ids (DOMID_FIRST_RESERVED, public/xen.h); it bounds the list. */
const DOMID_LIMIT = 0x7ff0;
const NO_UUID = '0'.repeat(32);

/** Places where Xen is looked for. Tests have their own. */
export interface XenPlaces {
  /** Root of /proc, /sys and /dev. */
  readonly root?: string;
  /** Directory of Xen's libraries; the loader's own places when left out. */
  readonly libraries?: string;
}

/** Parts that all domains of a host share. */
type SharedParts = Pick<XenDomainParts, 'calls' | 'watchdog' | 'saving' | 'left'>;

/** The domains of the Xen on which this machine is dom0. */
export class XenHost implements Host {
  readonly hypervisor = 'xen';
  readonly connection: string;
  readonly #calls: XenCalls;
  readonly #store: XenStore | undefined;
  readonly #parts: SharedParts;
  readonly #open = new Set<XenDomain>();
  #closed = false;

  private constructor(connection: string, parts: SharedParts) {
    this.connection = connection;
    this.#parts = parts;
    this.#calls = parts.calls;
    this.#store = XenStore.open(parts.calls.libraries.store);
  }

  /** @throws DomschedError `host-unreachable` with the reason when this is no dom0 or its libraries do not fit */
  static async connect(connection: string, places: XenPlaces = {}): Promise<XenHost> {
    const found = lookForDom0(places.root);
    if (!found.dom0) {
      throw new DomschedError('host-unreachable', `${found.reason}; ${found.advice}`, {
        connect: connection,
      });
    }
    const calls = XenCalls.open(found.version, places.libraries);
    const root = places.root ?? '/';
    const left = new LeftPauses(root);
    left.tidy((domid) => calls.domain(domid));
    return new XenHost(connection, {
      calls,
      watchdog: new XenWatchdog([calls.version, root, places.libraries ?? ''], pausesFolder(root)),
      saving: new SavingWatch(path.join(root, 'proc')),
      left,
    });
  }

  /** Release of the hypervisor, such as `4.17`. */
  get version(): string {
    return this.#calls.version;
  }

  /** The scheduler of the default CPU pool. */
  get scheduler(): string {
    const number = this.#calls.schedulerId();
    return SCHEDULERS[number] ?? `scheduler ${number}`;
  }

  /** Whether interrupts can be sent to HVM and PVH guests. */
  get canInject(): boolean {
    return this.#calls.canInject;
  }

  /** Whether domains have names, which takes a running xenstored. */
  get hasNames(): boolean {
    return this.#store !== undefined;
  }

  async list(): Promise<readonly DomainListing[]> {
    return this.#domains().map(({ info, identity }) => ({
      identity,
      state: stateOf(info),
      vcpus: info.onlineVcpus,
      memoryBytes: info.pages * FRAME_SIZE,
    }));
  }

  ids(): readonly string[] {
    return this.#domains().map(({ identity }) => identity.id);
  }

  /** @param id as in the list; the hypervisor's own number works too */
  async open(id: string): Promise<Domain> {
    const found = this.#domains().find(
      ({ info, identity }) => identity.id === id || String(info.domid) === id,
    );
    if (found === undefined) {
      throw new DomschedError('domain-not-found', `Xen has no domain ${id}`, { domain: id });
    }
    const { info, identity } = found;
    const domain = new XenDomain({ ...this.#parts, identity, info });
    for (const other of this.#open) if (other.closed) this.#open.delete(other);
    this.#open.add(domain);
    return domain;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await Promise.allSettled([...this.#open].map((domain) => domain.close()));
    this.#open.clear();
    this.#parts.watchdog.close();
    this.#store?.close();
    this.#calls.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * All domains that can be looked at. Excluded are dom0, in which we run, the domain that serves xenstore, for which
   * all others wait, and domains that are being torn down.
   */
  #domains(): { info: XenDomainInfo; identity: DomainIdentity }[] {
    const infos: XenDomainInfo[] = [];
    for (let next = 1; next < DOMID_LIMIT; ) {
      const info = this.#calls.nextDomain(next);
      if (info === undefined || info.domid < next) break;
      next = info.domid + 1;
      if (!info.dying && !info.xenstore) infos.push(info);
    }
    return infos.map((info) => {
      // Two domains have the same UUID while one is migrated to its own host.
      const alone = info.uuid !== NO_UUID && infos.filter(({ uuid }) => uuid === info.uuid).length === 1;
      const id = alone ? dashed(info.uuid) : String(info.domid);
      const name = this.#store?.read(`/local/domain/${info.domid}/name`) || `domain-${info.domid}`;
      // libxl writes it when it builds a domain whose kernel is a file of dom0.
      const kernelFile = this.#store?.read(`/vm/${dashed(info.uuid)}/image/kernel`);
      const identity = { id, name, hypervisor: 'xen', connection: this.connection } as const;
      return { info, identity: { ...identity, ...(kernelFile && { kernelFile }) } };
    });
  }
}

/** Formats a UUID as xl does. */
function dashed(uuid: string): string {
  return uuid.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
