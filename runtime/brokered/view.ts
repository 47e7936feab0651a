import { closeSync, readSync } from 'node:fs';
import { parseMaps } from '../hypervisor/qemu/process-maps.ts';
import type { MachineView } from '../hypervisor/vmm/machine-view.ts';
import { blocksIn, filledIn, type PageRun, type RamBlock } from '../hypervisor/vmm/ram-blocks.ts';
import { ReadMemory } from './read-memory.ts';

const CHUNK_BYTES = 64 * 1024;
/** A process has 65,530 mappings at most (vm.max_map_count), unless somebody has raised that. */
const MOST_BYTES = 64 * 1024 * 1024;

/** Memory of a machine's process, by files that the broker has opened for reading. */
export class HandedView implements MachineView {
  readonly pid: number;
  readonly #files: readonly number[];
  /** All of the process's memory, by its addresses. */
  readonly memory: ReadMemory;

  /** @param files in the order of `FILES` in `runtime/broker/machines.ts`; ours to close */
  constructor(pid: number, name: string, files: readonly number[]) {
    this.pid = pid;
    this.#files = files;
    this.memory = new ReadMemory(files[0]!, name);
  }

  blocks(): RamBlock[] {
    return blocksIn(parseMaps(textOf(this.#files[1]!)));
  }

  filled(start: number, length: number): Generator<PageRun> {
    return filledIn(this.#files[2]!, start, length);
  }

  open(block: RamBlock): ReturnType<MachineView['open']> {
    return { memory: this.memory, mapping: undefined, address: block.start };
  }

  close(): void {
    for (const fd of this.#files) closeSync(fd);
  }
}

function textOf(fd: number): string {
  const chunks: Buffer[] = [];
  for (let at = 0; at < MOST_BYTES; ) {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    const read = readSync(fd, chunk, 0, CHUNK_BYTES, at);
    if (read === 0) break;
    chunks.push(chunk.subarray(0, read));
    at += read;
  }
  return Buffer.concat(chunks).toString('latin1');
}
