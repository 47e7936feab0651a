import type { KernelMemory, MemoryLayout } from '../contract.ts';
import { ExtractError } from '../error.ts';
import { extractLayout } from '../extract.ts';
import type { Selection } from '../structures.ts';
import { MemoryKernel, type ReadMore } from './memory-kernel.ts';

/**
 * The layout of a kernel that runs, out of its own image in memory. Errors have its `details.buildId`, where it is found.
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
  try {
    const layout = await extractLayout(kernel, { engine: 'btf', selection });
    return { layout, evidence: kernel.evidence };
  } catch (error) {
    if (!(error instanceof ExtractError)) throw error;
    const { code, details } = error;
    // There is no file of which another copy might be intact.
    const damaged = code === 'corrupt-btf';
    const message = damaged ? `the types (BTF) in the ${memory.name} are damaged` : error.message;
    throw new ExtractError(code, message, { ...details, buildId: kernel.buildId }, { cause: error });
  }
}
