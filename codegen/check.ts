import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { KernelLayout } from '../extractor/contract.ts';
import { byCodeUnit, factsOf, moduleOf } from '../runtime/layout/module.ts';
import { compareIndexes, compareStructures, type Difference, otherWords, structureFiles } from './compare.ts';
import { kernelText, STRUCTURES } from './modules.ts';
import type { StorePlace } from './place.ts';
import { readStore, registryText, sameBuild } from './store.ts';
import { validateLayout } from './validate.ts';

export interface CheckOptions extends StorePlace {
  /** The layout is partial: do not report structures that only the store has. */
  partial?: boolean;
}

/**
 * Compares a layout with the store's modules of its kernel; writes nothing.
 *
 * If the store lacks this build but has one of the same release, it compares with that one, so the build-id appears
 * among the differences.
 *
 * @returns the differences; none if a generation would change nothing
 * @throws ExtractError `layout-invalid`
 */
export async function check(layout: KernelLayout, place: CheckOptions): Promise<Difference[]> {
  const valid = validateLayout(layout);
  const outDir = resolve(place.outDir);
  const kernels = await readStore(outDir);
  const stored =
    kernels.find((kernel) => sameBuild(kernel, factsOf(valid))) ??
    kernels.find((kernel) => kernel.release === valid.kernel.release);
  if (!stored) {
    return [
      {
        about: 'kernel',
        where: valid.kernel.release,
        property: null,
        generated: null,
        extracted: valid.kernel.buildId,
        message: `${valid.kernel.release}: no layout of this kernel in ${outDir}; extract it without --check first`,
      },
    ];
  }
  const wanted = kernelText(moduleOf(valid));
  const index = await readFile(join(outDir, stored.folder, 'index.ts'), 'utf8');
  const files = structureFiles(index);
  const names = new Set([...(place.partial ? [] : files.keys()), ...wanted.structures.keys()]);
  const differences = compareIndexes(index, wanted.index);
  for (const name of [...names].sort(byCodeUnit)) {
    const file = files.get(name);
    const text =
      file === undefined ? null : await readFile(join(outDir, STRUCTURES, file), 'utf8').catch(() => null);
    differences.push(...compareStructures(name, text, wanted.structures.get(name)?.text ?? null));
  }
  if (differences.length === 0 && !place.partial && index !== wanted.index) {
    differences.push(otherWords(`${stored.folder}/index.ts`));
  }
  const registry = await readFile(join(outDir, 'registry.ts'), 'utf8').catch(() => null);
  if (registry !== registryText(kernels)) {
    differences.push({
      about: 'registry',
      where: 'registry.ts',
      property: null,
      generated: null,
      extracted: null,
      message: 'registry.ts does not follow from the folders beside it: extract any kernel to write it again',
    });
  }
  return differences;
}
