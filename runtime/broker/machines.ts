import { closeSync, openSync, readFileSync } from 'node:fs';
import { DomschedError } from '../error.ts';
import { isAlive } from '../host-process.ts';
import { QemuRam } from '../hypervisor/qemu/ram.ts';
import type { Domain } from '../hypervisor/types.ts';
import { ramBytes } from '../hypervisor/vmm/command-line.ts';
import { ProcessDomain, requireMachine, stateOf, vcpuCount } from '../hypervisor/vmm/domain.ts';
import { type MachineProcess, MachineSearch } from '../hypervisor/vmm/machine-process.ts';
import { piecesOf, placements } from '../hypervisor/vmm/place-ram.ts';
import { openBlock, type RamBlock, ramBlocks } from '../hypervisor/vmm/ram-blocks.ts';
import { candidates } from '../hypervisor/vmm/ram-candidates.ts';
import { sourcesOf } from '../hypervisor/vmm/ram-sources.ts';
import type { ListedMachine, RequestOf } from './protocol.ts';

/** Where a guest's RAM is in the process that runs it. */
export type RamPlace = Pick<RequestOf<'place'>, 'blocks' | 'low'>;

/** Machines that can be opened. */
export interface Machines {
  list(): readonly ListedMachine[];
  /**
   * @returns descriptors by which its memory can be read and not be written; they are the caller's to close
   * @throws DomschedError `domain-not-found`; `refused` for one that the reader could write to by itself
   */
  open(pid: number): { readonly process: MachineProcess; readonly descriptors: readonly number[] };
  /**
   * The machine with all that can be done to it.
   * @throws DomschedError `refused` for a place where its RAM cannot be; `domain-gone`
   */
  place(machine: MachineProcess, place: RamPlace): Domain;
}

/** Files of `/proc/PID`, in the order in which they are handed over. */
export const FILES = ['mem', 'maps', 'pagemap'] as const;
/** The most that page tables can hold (Intel SDM vol. 3A, 4.1.4). */
const PHYSICAL_BITS = 52;

/** Virtual machines of this host, by their processes. */
export class ProcessMachines implements Machines {
  readonly #search = new MachineSearch();

  list(): readonly ListedMachine[] {
    return this.#search.find().map((machine) => {
      const { pid, started, name, isQemu, args } = machine;
      const memoryBytes = ramBytes(args) ?? ramBlocks(pid)[0]?.length ?? 0;
      return { pid, started, name, isQemu, state: stateOf(machine), vcpus: vcpuCount(machine), memoryBytes };
    });
  }

  open(pid: number): { process: MachineProcess; descriptors: number[] } {
    const machine = requireMachine(pid);
    if (isNobodys(pid)) {
      const why = 'it runs as nobody, as the reader does, who could do anything to it';
      throw new DomschedError(
        'refused',
        `${machine.name}: ${why}; give it a user of its own, or set split = false`,
        { pid },
      );
    }
    const descriptors: number[] = [];
    try {
      // Whoever gets these can neither write through them nor open them anew for writing.
      for (const file of FILES) descriptors.push(openSync(`/proc/${pid}/${file}`, 'r'));
      if (!isAlive(machine)) throw gone(machine);
      return { process: machine, descriptors };
    } catch (cause) {
      for (const fd of descriptors) closeSync(fd);
      if (cause instanceof DomschedError) throw cause;
      const message = `${machine.name}: its memory cannot be opened: ${(cause as Error).message}`;
      throw new DomschedError('host-unreachable', message, { pid }, { cause });
    }
  }

  place(machine: MachineProcess, place: RamPlace): ProcessDomain {
    const { pid, name } = machine;
    const chosen = candidates(machine, ramBlocks(pid)).find((blocks) => isChosen(blocks, place));
    const total = (chosen ?? []).reduce((sum, { length }) => sum + length, 0);
    const placement = placements(total).find(({ low }) => low === place.low);
    if (chosen === undefined || placement === undefined) {
      throw new DomschedError('refused', `${name}: its RAM cannot be there; nothing was changed`, { pid });
    }
    const parts = chosen.map((block) => ({ ...openBlock(pid, block), length: block.length }));
    const sources = sourcesOf(parts, piecesOf(placement, parts));
    const ram = new PlacedRam(name, PHYSICAL_BITS, sources, () => isThere(pid, chosen));
    if (isAlive(machine)) return new ProcessDomain(machine, ram);
    ram.close();
    throw gone(machine);
  }
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

/** Whether a process has the reader's user or group, by any of its ids: effective, real, saved, or for files. */
export function isNobodys(pid: number): boolean {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return /^[UG]id:.*\t65534(\t|$)/m.test(status);
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

function gone({ name }: MachineProcess): DomschedError {
  return new DomschedError('domain-gone', `${name} has ended`, { domain: name });
}
