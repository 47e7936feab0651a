import type { RamSource } from '../qemu/ram.ts';
import type { Piece } from './place-ram.ts';

/** Memory of a process that is open. */
type OpenedPart = Pick<RamSource, 'memory' | 'mapping'> & {
  /** Address of its first byte in that memory. */
  readonly address: number;
};

/** Where a guest's memory is in ours and in the process. */
export function sourcesOf(parts: readonly OpenedPart[], pieces: readonly Piece[]): RamSource[] {
  return parts.map(({ memory, mapping, address }, part) => ({
    memory,
    mapping,
    segments: pieces
      .filter((piece) => piece.part === part)
      .map(({ first, count, offset }) => ({ first, count, address: address + offset })),
  }));
}
