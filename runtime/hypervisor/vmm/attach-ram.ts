import { DomschedError } from '../../error.ts';
import { hostProcess } from '../../host-process.ts';
import { FRAME_SIZE, type GuestFrame } from '../frame.ts';
import { FRAME_STATUS, type FrameBatch } from '../frame-batch.ts';
import { QemuRam } from '../qemu/ram.ts';
import type { FrameRegion } from '../types.ts';
import { hasKernel, provePlacement } from './guest-tables.ts';
import type { MachineProcess } from './machine-process.ts';
import { type MachineView, ownView } from './machine-view.ts';
import { keyOfBlock, OpenedBlocks } from './opened-blocks.ts';
import { type Piece, pieceAt, piecesOf, placements, pluggedStart } from './place-ram.ts';
import { type BootRam, findPlugged, type PluggedRam, pieceFor } from './plugged-ram.ts';
import type { RamBlock } from './ram-blocks.ts';
import { candidates } from './ram-candidates.ts';
import { sourcesOf } from './ram-sources.ts';

/** How often to try, because a running guest changes its tables while we follow them. */
const ATTEMPTS = 3;
/** The most that page tables can hold (Intel SDM vol. 3A, 4.1.4): without the monitor the real number is unknown. */
const PHYSICAL_BITS = 52;
/** Shortest and longest time between two searches for plugged memory. */
const FIRST_WAIT_MS = 1_000;
const LAST_WAIT_MS = 60_000;

/** Frames of a guest whose process was found. */
export class ProcessRam extends QemuRam {
  readonly #view: MachineView;
  /** What it started with, which stays. */
  readonly boot: BootRam;
  #plugged: readonly PluggedRam[] = [];
  /** The process's memory when plugged memory was last looked for. */
  #seen = '';
  /** Somebody asked for a frame that is not ours to read, perhaps plugged memory whose place is not proved yet. */
  #missed: boolean;
  #nextLook = 0;
  #waitMs = FIRST_WAIT_MS;

  /** @param hasMore whether memory was plugged since */
  constructor(name: string, view: MachineView, boot: BootRam, hasMore: boolean) {
    super(name, PHYSICAL_BITS, sourcesOf(boot.parts, piecesOf(boot.placement, boot.parts)));
    this.#view = view;
    this.boot = boot;
    this.#missed = hasMore;
    this.renew();
  }

  override read(batch: FrameBatch<GuestFrame>): number {
    const failed = super.read(batch);
    if (failed > 0 && !this.#missed) this.#missed = this.#isMissing(batch);
    return failed;
  }

  /** Frames of a region that the guest has ever used, ascending. */
  *filled({ first, count }: FrameRegion<GuestFrame>): Generator<FrameRegion<GuestFrame>> {
    const [blocks, pieces] = [this.#blocks(), this.#pieces()];
    const piece = pieces[pieceAt(pieces, first * FRAME_SIZE)];
    if (piece === undefined) return;
    const start = blocks[piece.part]!.start + piece.offset + (first - piece.first) * FRAME_SIZE;
    for (const run of this.#view.filled(start, count * FRAME_SIZE)) {
      yield { first: (first + run.first) as GuestFrame, count: run.count };
    }
  }

  /** Whether the process still has the memory that was plugged as it was found; true without any. */
  get isCurrent(): boolean {
    return this.#plugged.length === 0 || this.#seen === signatureOf(this.#view);
  }

  /**
   * Looks for plugged memory, and for what has become of it, if there is reason to: the process has other memory than
   * before, or a frame was asked for that could be in it. Without success it waits longer each time, as a look takes
   * milliseconds to tenths of a second.
   * @returns whether the guest's memory is another one now
   */
  renew(): boolean {
    const now = performance.now();
    const gone = !this.isCurrent;
    if (!gone && (!this.#missed || now < this.#nextLook)) return false;
    this.#missed = false;
    this.#seen = signatureOf(this.#view);
    const before = placesOf(this.#plugged);
    this.#plugged = findPlugged(this.#view, this.boot, this.#plugged);
    const changed = before !== placesOf(this.#plugged);
    this.#waitMs = changed ? FIRST_WAIT_MS : Math.min(2 * this.#waitMs, LAST_WAIT_MS);
    this.#nextLook = performance.now() + this.#waitMs;
    if (changed) {
      const parts = [...this.boot.parts, ...this.#plugged.map(({ part }) => part)];
      this.replace(sourcesOf(parts, this.#pieces()));
    }
    return changed;
  }

  #isMissing({ count, status, frames }: FrameBatch<GuestFrame>): boolean {
    const start = pluggedStart(this.boot.placement) / FRAME_SIZE;
    for (let i = 0; i < count; i++) if (status[i] === FRAME_STATUS.absent && frames[i]! >= start) return true;
    return false;
  }

  #blocks(): readonly RamBlock[] {
    return [...this.boot.blocks, ...this.#plugged.map(({ block }) => block)];
  }

  #pieces(): readonly Piece[] {
    const { parts, placement } = this.boot;
    const plugged = this.#plugged.map(({ block, at }, index) => pieceFor(block, at, parts.length + index));
    return [...piecesOf(placement, parts), ...plugged];
  }
}

function placesOf(plugged: readonly PluggedRam[]): string {
  return plugged.map(({ block, at }) => `${keyOfBlock(block)} at ${at}`).join();
}

/** Changes when the process gets or loses memory that is big enough to be a guest's. */
function signatureOf(view: MachineView): string {
  return view.blocks().map(keyOfBlock).sort().join();
}

/**
 * Finds a guest's RAM in the process that runs it, and the place of each piece in the guest, without asking that
 * process: mappings are candidates, and the page tables of the guest's own kernel decide.
 * @throws DomschedError `kernel-unidentified` when none is proved; `domain-gone`; `host-unreachable` when we may not
 *   look
 */
export function attachRam(machine: MachineProcess, view: MachineView = ownView(machine.pid)): ProcessRam {
  const { pid, name } = machine;
  const choices = candidates(machine, view.blocks());
  if (choices.length === 0) throw noMemory(machine);
  let sawKernel = false;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    using opened = new OpenedBlocks(view);
    for (const blocks of choices) {
      const total = blocks.reduce((sum, { length }) => sum + length, 0);
      const parts = blocks.map((block) => opened.part(block));
      const roots = opened.roots(blocks, total);
      for (const placement of placements(total)) {
        const proof = provePlacement(parts, placement, roots);
        if (proof === undefined) {
          sawKernel ||= hasKernel(parts, placement, roots);
          continue;
        }
        opened.take(blocks);
        return new ProcessRam(name, view, { blocks, parts, placement }, proof.plugged.length > 0);
      }
    }
  }
  throw new DomschedError(
    'kernel-unidentified',
    sawKernel
      ? `${name}: where its memory lies in the guest is not proved by its own page tables (a memory node that no program ` +
          'uses?); give it a QMP socket of ours: -qmp unix:/run/domsched/NAME.sock,server=on,wait=off'
      : `${name}: no kernel's page tables are in its memory: it is still booting, or no 64-bit Linux`,
    { domain: name, pid },
  );
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
