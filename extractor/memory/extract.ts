import type { KernelMemory, MemoryLayout } from '../contract.ts';
import { ExtractError } from '../error.ts';
import { extractLayout } from '../extract.ts';
import type { Selection } from '../structures.ts';
import { MemoryKernel, type ReadMore } from './memory-kernel.ts';

/**
 * Extracts the layout of a running kernel from its image in memory. Errors have its `details.buildId` if found.
 *
 * @param more reads memory that is not among its parts
 * @throws ExtractError `no-debug-information` with `details.missing`, `corrupt-btf`, `unsupported-btf`,
 *   `struct-not-found`, `struct-conflict`
 */
export async function extractMemory(
  memory: KernelMemory,
  selection: Selection = { kind: 'scheduler' },
  more?: ReadMore,
): Promise<MemoryLayout> {
  await using kernel = await MemoryKernel.open(memory, more);
  try {
    const layout = await extractLayout(kernel, { engine: 'btf', selection });
    return { layout, evidence: kernel.evidence };
  } catch (error) {
    if (!(error instanceof ExtractError)) throw error;
    const { code, details } = error;
    // There is no file, so no other copy of it can be intact.
    const damaged = code === 'corrupt-btf';
    const message = damaged ? `the types (BTF) in the ${memory.name} are damaged` : error.message;
    throw new ExtractError(code, message, { ...details, buildId: kernel.buildId }, { cause: error });
  }
}
