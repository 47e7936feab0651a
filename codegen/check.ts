import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { KernelLayout } from '../extractor/contract.ts';
import { compareModules, type Difference, withoutHeader } from './compare.ts';
import { kernelModules } from './modules.ts';
import type { Place } from './place.ts';
import { printModules } from './print.ts';
import { identityOf, readStore, registryText, sameBuild } from './store.ts';
import { validateLayout } from './validate.ts';

export interface CheckOptions extends Place {
  /** The layout has some of the kernel's structures only: say nothing of the others. */
  partial?: boolean;
}

/**
 * Compares a layout with what the store holds of its kernel; writes nothing.
 *
 * Where the store has no such build but one of the same release, it is compared with that one, so that the
 * build-id shows among the differences.
 *
 * @returns the differences, none where a generation would change nothing
 * @throws ExtractError `layout-invalid`
 */
export async function check(layout: KernelLayout, place: CheckOptions): Promise<Difference[]> {
  const valid = validateLayout(layout);
  const outDir = resolve(place.outDir);
  const kernels = await readStore(outDir);
  const stored =
    kernels.find((kernel) => sameBuild(kernel, identityOf(valid))) ??
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
  const folder = join(outDir, stored.folder);
  const wanted = printModules(kernelModules(valid));
  const present = (await readdir(folder)).filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'));
  const names = [...new Set([...wanted.keys(), ...(place.partial ? [] : present)])].sort();
  const kernelText = await readFile(join(folder, 'kernel.ts'), 'utf8');
  const differences: Difference[] = [];
  // Where the kernel's facts differ, so do all headers, which repeat them: once is enough.
  const body = kernelText === wanted.get('kernel.ts') ? (text: string) => text : withoutHeader;
  for (const name of names) {
    if (place.partial && name === 'index.ts') continue;
    const text = present.includes(name) ? await readFile(join(folder, name), 'utf8') : null;
    const other = wanted.get(name) ?? null;
    differences.push(...compareModules(name, text && body(text), other && body(other)));
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
  // The index follows from the modules: where those differ, it has nothing to add.
  const own = differences.filter(({ about, where }) => about !== 'text' || where !== 'index.ts');
  return own.length > 0 ? own : differences;
}
