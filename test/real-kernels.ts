import test from 'ava';
import { type CachedKernel, cachedKernels, requireKernel } from '../kernels/cache.ts';
import { KernelsError } from '../kernels/error.ts';
import { debianKernels } from '../kernels/manifest.ts';
import { kernelCache } from '../kernels/paths.ts';
import { knownKernels } from '../runtime/layout/registry.ts';
import type { LayoutView } from '../runtime/layout/view.ts';

/** Of those that `make test` fetches, a line for each that is not in a cache: it says what to run. */
export function missingKernels(directory = kernelCache): string[] {
  return debianKernels()
    .filter((kernel) => kernel.default)
    .flatMap(({ id }) => {
      try {
        requireKernel(id, directory);
        return [];
      } catch (error) {
        if (error instanceof KernelsError) return [error.message];
        throw error;
      }
    });
}

/**
 * Debian's kernels, for a test file that reads them: all that are here. Where one is missing that `make test` fetches,
 * the file gets a failing test that says so; without any, it ends at once.
 * @throws KernelsError `kernel-absent` where there is none at all
 */
export function realKernels(): CachedKernel[] {
  const missing = missingKernels();
  const found = cachedKernels();
  if (found.length === 0) throw new KernelsError('kernel-absent', missing.join('\n'));
  for (const message of missing) test(message.split(':')[0]!, (t) => t.fail(message));
  return found;
}

/** The committed layout of a kernel that is here. @throws KernelsError `kernel-absent` */
export async function layoutOf({ release }: CachedKernel): Promise<LayoutView> {
  const known = (await knownKernels()).find((candidate) => candidate.release === release);
  if (known !== undefined) return known.load();
  throw new KernelsError(
    'kernel-absent',
    `generated/ has no layout of ${release}, which is in the cache: run \`node kernels/complete.ts\``,
  );
}
