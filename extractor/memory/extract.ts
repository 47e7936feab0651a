import type { KernelMemory, MemoryLayout } from '../contract.ts';
import { extractLayout } from '../extract.ts';
import type { Selection } from '../structures.ts';
import { MemoryKernel, type ReadMore } from './memory-kernel.ts';

/**
 * The layout of a kernel that runs, out of its own image in memory.
 *
 * @param more brings what is not among its parts
 * @throws ExtractError `no-debug-information` with `details.missing`, `corrupt-btf`, `unsupported-btf`,
 *   `struct-not-found`, `struct-conflict`
 */
export async function extractMemory(
  memory: KernelMemory,
  selection: Selection = { kind: 'scheduler' },
  more?: ReadMore,
): Promise<MemoryLayout> {
  await using kernel = await MemoryKernel.open(memory, more);
  const layout = await extractLayout(kernel, { engine: 'btf', selection });
  return { layout, evidence: kernel.evidence };
}
