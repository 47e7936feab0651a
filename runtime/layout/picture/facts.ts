import type { KernelFacts } from '../types.ts';
import type { StructView } from '../view.ts';
import { CACHE_LINE, type Outline } from './outline.ts';

/** Title with the kernel's own spelling: `struct rq (the kernel's runqueue)`. */
export function structTitle(struct: StructView): string {
  const alias = struct.sourceName === struct.name ? '' : ` (here called ${struct.name})`;
  return `${struct.kind} ${struct.sourceName}${alias}`;
}

/** Sizes and counts on one line. */
export function sizeFacts(struct: StructView, found: Outline): string[] {
  const lines = Math.ceil(struct.size / CACHE_LINE);
  return [
    count(struct.size, 'byte'),
    count(lines, 'cache line'),
    count(found.memberCount, 'member'),
    found.holeCount === 0
      ? 'no holes'
      : `${count(found.holeCount, 'hole')} of ${count(found.holeBytes, 'byte')}`,
    ...(found.paddingBytes > 0 ? [`${count(found.paddingBytes, 'byte')} of padding`] : []),
  ];
}

/** The layout's sources on one line. */
export function sourceFacts(kernel: KernelFacts): string[] {
  const { engine, dwarfVersion, file } = kernel.source;
  return [
    `build-id ${kernel.buildId ?? 'unknown'}`,
    `read from ${file} by ${engine}${dwarfVersion === null ? '' : ` (DWARF ${dwarfVersion})`}`,
  ];
}

function count(n: number, what: string): string {
  return `${n.toLocaleString('en-US')} ${what}${n === 1 ? '' : 's'}`;
}
