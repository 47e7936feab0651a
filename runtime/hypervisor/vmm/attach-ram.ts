import { DomschedError } from '../../error.ts';
import { hostProcess } from '../../host-process.ts';
import { FRAME_SIZE, type GuestFrame } from '../frame.ts';
import { QemuRam, type RamSource } from '../qemu/ram.ts';
import type { FrameRegion } from '../types.ts';
import { ramBytes } from './command-line.ts';
import { type GuestBlock, possibleRoots, proves } from './guest-tables.ts';
import type { MachineProcess } from './machine-process.ts';
import { piecesOf, placements } from './place-ram.ts';
import { filledPages, openBlock, type RamBlock, ramBlocks } from './ram-blocks.ts';

/** How often to try, because a running guest changes its tables while we follow them. */
const ATTEMPTS = 3;
/** The most that page tables can hold (Intel SDM vol. 3A, 4.1.4): without the monitor the real number is unknown. */
const PHYSICAL_BITS = 52;

/** Frames of a guest whose process was found. */
export class ProcessRam extends QemuRam {
  readonly #pid: number;
  readonly #start: number;
  readonly #pieces: readonly { first: number; count: number; offset: number }[];

  /** @param start start of its RAM in the process */
  constructor(name: string, pid: number, start: number, source: RamSource, pieces: ProcessRam['pieces']) {
    super(name, PHYSICAL_BITS, [source]);
    this.#pid = pid;
    this.#start = start;
    this.#pieces = pieces;
  }

  get pieces(): readonly { first: number; count: number; offset: number }[] {
    return this.#pieces;
  }

  /** Frames of a region that the guest has ever used, ascending. */
  *filled({ first, count }: FrameRegion<GuestFrame>): Generator<FrameRegion<GuestFrame>> {
    const piece = this.#pieces.find((each) => first >= each.first && first < each.first + each.count);
    if (piece === undefined) return;
    const offset = piece.offset + (first - piece.first) * FRAME_SIZE;
    for (const run of filledPages(this.#pid, this.#start + offset, count * FRAME_SIZE)) {
      yield { first: (first + run.first) as GuestFrame, count: run.count };
    }
  }
}

/**
 * Finds a guest's RAM in the process that runs it, and the place of each piece in the guest, without asking that
 * process: mappings are candidates, and the page tables of the guest's own kernel decide.
 * @throws DomschedError `kernel-unidentified` when none is proved; `domain-gone`; `host-unreachable` when we may not
 *   look
 */
export function attachRam(machine: MachineProcess): ProcessRam {
  const { pid, name } = machine;
  const blocks = candidates(machine);
  if (blocks.length === 0) throw noMemory(machine);
  let sawRoots = false;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    for (const block of blocks) {
      const opened = openBlock(pid, block);
      const guest: GuestBlock = { ...opened, length: block.length };
      try {
        const roots = possibleRoots(guest, filledPages(pid, block.start, block.length));
        sawRoots ||= roots.length > 0;
        const placement = placements(block.length).find((each) => proves(guest, each, roots));
        if (placement !== undefined) {
          const pieces = piecesOf(placement);
          const segments = pieces.map(({ first, count, offset }) => ({
            first,
            count,
            address: opened.address + offset,
          }));
          const source = { memory: opened.memory, mapping: opened.mapping, segments };
          return new ProcessRam(name, pid, block.start, source, pieces);
        }
      } catch (error) {
        opened.mapping?.close();
        throw error;
      }
      opened.mapping?.close();
    }
  }
  throw new DomschedError(
    'kernel-unidentified',
    sawRoots
      ? `${name}: where its memory lies in the guest is not proved by its own page tables (several memory nodes or ` +
          'plugged memory?); give it a QMP socket of ours: -qmp unix:/run/domsched/NAME.sock,server=on,wait=off'
      : `${name}: no kernel's page tables are in its memory: it is still booting, or no 64-bit Linux`,
    { domain: name, pid },
  );
}

/** Possible RAM. If the command line gives a size, a bigger block is cut: to its end, or a file to its beginning. */
function candidates({ pid, args, isQemu }: MachineProcess): RamBlock[] {
  const blocks = ramBlocks(pid);
  const wanted = isQemu ? ramBytes(args) : undefined;
  if (wanted === undefined) return blocks;
  const likely = blocks.flatMap((block) => {
    if (block.length < wanted) return [];
    // The part before it in one mapping is other memory; QEMU leaves an inaccessible page behind it.
    const start = block.map.inode === 0 ? block.start + block.length - wanted : block.start;
    return [{ ...block, start, length: wanted }];
  });
  return [...likely.filter(({ length }) => length === wanted)];
}

function noMemory({ pid, started, name }: MachineProcess): DomschedError {
  if (hostProcess(pid)?.started !== started) {
    return new DomschedError('domain-gone', `${name} has ended`, { domain: name, pid });
  }
  return new DomschedError(
    'host-unreachable',
    `${name}: process ${pid} shows no memory that could be its guest's; run as root on the host itself`,
    { domain: name, pid },
  );
}
