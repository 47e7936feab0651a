import { DomschedError } from '../error.ts';
import { isAlive } from '../host-process.ts';
import { listeningProcess } from '../hypervisor/qemu/qemu-process.ts';
import { QemuRam } from '../hypervisor/qemu/ram.ts';
import type { DomainListing } from '../hypervisor/types.ts';
import { ramBytes } from '../hypervisor/vmm/command-line.ts';
import { identityOf, ProcessDomain, requireMachine, stateOf, vcpuCount } from '../hypervisor/vmm/domain.ts';
import { type MachineProcess, MachineSearch } from '../hypervisor/vmm/machine-process.ts';
import { piecesOf, placements } from '../hypervisor/vmm/place-ram.ts';
import { openBlock, type RamBlock, ramBlocks } from '../hypervisor/vmm/ram-blocks.ts';
import { candidates } from '../hypervisor/vmm/ram-candidates.ts';
import { sourcesOf } from '../hypervisor/vmm/ram-sources.ts';
import { gone, type Machines, type OpenedMachine, openFiles, type RamPlace } from './machines.ts';

/** The most that page tables can hold (Intel SDM vol. 3A, 4.1.4). */
const PHYSICAL_BITS = 52;

/** Virtual machines of this host, by their processes: one of them, or all. */
export class ProcessMachines implements Machines {
  readonly #search = new MachineSearch();
  readonly #pid: number | undefined;
  readonly #sockets: () => readonly string[];

  /**
   * @param pid the one machine that is meant; all when left out
   * @param sockets QMP sockets of other places, to whom their machines are left: two pauses by two ways know nothing of
   *   each other
   */
  constructor(pid?: number, sockets: () => readonly string[] = () => []) {
    this.#pid = pid;
    this.#sockets = sockets;
  }

  ids(): readonly string[] {
    return this.#machines().map(({ pid }) => `pid:${pid}`);
  }

  async list(): Promise<readonly DomainListing[]> {
    return this.#machines().map((machine) => {
      const { pid, args } = machine;
      const memoryBytes = ramBytes(args) ?? ramBlocks(pid)[0]?.length ?? 0;
      return {
        identity: identityOf(machine),
        state: stateOf(machine),
        vcpus: vcpuCount(machine),
        memoryBytes,
      };
    });
  }

  async open(id: string): Promise<OpenedMachine> {
    const pid = Number(/^pid:([1-9]\d{0,9})$/.exec(id)?.[1] ?? Number.NaN);
    if (!Number.isSafeInteger(pid) || !this.#isMeant(pid)) {
      throw new DomschedError('domain-not-found', `there is no virtual machine ${id}`, { domain: id });
    }
    const process = requireMachine(pid);
    const identity = { ...identityOf(process), pid, started: process.started };
    const place = (where: RamPlace | undefined) => placed(process, where);
    return { identity, process, descriptors: openFiles(process), place, close: async () => undefined };
  }

  owns({ connection, domain }: { connection: string; domain: string }): boolean {
    return connection === domain && /^pid:[1-9]\d{0,9}$/.test(domain);
  }

  #machines(): readonly MachineProcess[] {
    const machines = this.#search.find();
    const served = this.#served();
    return machines.filter(({ pid }) => this.#isMeant(pid, served));
  }

  #isMeant(pid: number, served = this.#served()): boolean {
    return (this.#pid === undefined || this.#pid === pid) && !served.has(pid);
  }

  #served(): ReadonlySet<number> {
    return new Set(this.#sockets().flatMap((socket) => listeningProcess(socket, undefined) ?? []));
  }
}

/** @throws DomschedError as {@link OpenedMachine.place} */
function placed(machine: MachineProcess, place: RamPlace | undefined): ProcessDomain {
  const { pid, name } = machine;
  const chosen = place && candidates(machine, ramBlocks(pid)).find((blocks) => isChosen(blocks, place));
  const total = (chosen ?? []).reduce((sum, { length }) => sum + length, 0);
  const placement = placements(total).find(({ low }) => low === place?.low);
  if (chosen === undefined || placement === undefined) {
    throw new DomschedError('refused', `${name}: its RAM cannot be there; nothing was changed`, { pid });
  }
  const parts = chosen.map((block) => ({ ...openBlock(pid, block), length: block.length }));
  const sources = sourcesOf(parts, piecesOf(placement, parts));
  const ram = new PlacedRam(name, PHYSICAL_BITS, sources, () => isThere(pid, chosen));
  if (isAlive(machine)) return new ProcessDomain(machine, ram);
  ram.close();
  throw gone(name);
}

/** RAM where the reader says it is; memory that is plugged later is not written. */
class PlacedRam extends QemuRam {
  readonly #isThere: () => boolean;

  constructor(
    name: string,
    physicalBits: number,
    sources: ConstructorParameters<typeof QemuRam>[2],
    isThere: () => boolean,
  ) {
    super(name, physicalBits, sources);
    this.#isThere = isThere;
  }

  renew(): boolean {
    return false;
  }

  get isCurrent(): boolean {
    return this.#isThere();
  }
}

function isChosen(blocks: readonly RamBlock[], { blocks: wanted }: RamPlace): boolean {
  const same = (block: RamBlock, i: number) =>
    block.start === wanted[i]?.start && block.length === wanted[i].length;
  return blocks.length === wanted.length && blocks.every(same);
}

/** Whether the process still has these blocks, by the same files. */
function isThere(pid: number, chosen: readonly RamBlock[]): boolean {
  const now = ramBlocks(pid);
  return chosen.every(({ start, length, map }) =>
    now.some(
      (block) =>
        block.start <= start &&
        start + length <= block.start + block.length &&
        block.map.inode === map.inode &&
        block.map.major === map.major &&
        block.map.minor === map.minor,
    ),
  );
}
