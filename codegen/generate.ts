import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { KernelLayout } from '../extractor/contract.ts';
import { type Scheduler, schedulersOf } from '../runtime/layout/schedulers.ts';
import { bundle, bundleKey, javascript } from './bundle.ts';
import { kernelModules } from './modules.ts';
import type { Place } from './place.ts';
import { printModules } from './print.ts';
import { Replacement, recover, writing } from './replace.ts';
import { folderFor, readStore, registryText, type StoredKernel, sortKernels, storedKernel } from './store.ts';
import { validateLayout } from './validate.ts';

/** What a generation did. */
export interface Written {
  /** Of the kernel, in the store: its release, or `<release>+<build-id>` beside another build of it. */
  folder: string;
  /** The folder's full path. */
  path: string;
  /** Names of its modules. */
  files: string[];
  /** False where the store held these very bytes already. */
  changed: boolean;
  schedulers: Scheduler[];
}

/**
 * Writes a kernel's modules and its entry in the registry. Everything is printed before anything is written, and
 * written before anything takes its place. The same layout gives the same bytes.
 *
 * @throws ExtractError `layout-invalid`, `no-space`, `output-failed`, `interrupted`; the store is then as it was
 */
export async function generate(
  layout: KernelLayout,
  place: Place & { signal?: AbortSignal },
): Promise<Written> {
  const valid = validateLayout(layout);
  const outDir = resolve(place.outDir);
  const { folder, kernels } = await writing(outDir, async () => {
    await recover(outDir);
    const kernels = await readStore(outDir);
    return { folder: folderFor(valid, kernels), kernels };
  });
  const files = printModules(kernelModules(valid));
  const own = storedKernel(folder, files);
  const { signal } = place;
  using replacement = new Replacement();
  const sameFolder = place.compiledDir !== undefined && resolve(place.compiledDir) === outDir;
  const all = sameFolder ? new Map([...files, ['index.js', bundle(files)]]) : files;
  const changed = await replacement.folder(join(outDir, folder), all, signal);
  const wanted = sortKernels([...kernels.filter((kernel) => kernel.folder !== folder), own]);
  await stageStore(place, wanted, replacement, new Map([[folder, files]]), signal);
  await replacement.commit(signal);
  // Another extraction may have ended since we looked: then the registry that was written last lacks a kernel.
  if (registryText(await readStore(outDir)) !== registryText(wanted)) await updateStore(place);
  return {
    folder,
    path: join(outDir, folder),
    files: [...files.keys()],
    changed,
    schedulers: schedulersOf(valid.structs),
  };
}

/**
 * Brings the registry and the compiled form in line with a store's folders.
 *
 * Two extractions may end at once, and the slower writer of the registry may have looked first: so look again after
 * writing, until what is there is what follows from the folders.
 *
 * @throws ExtractError `no-space`, `output-failed`
 */
export async function updateStore(place: Place): Promise<void> {
  const outDir = resolve(place.outDir);
  await mkdir(outDir, { recursive: true });
  for (let attempt = 0; attempt < 10; attempt++) {
    using replacement = new Replacement();
    const staged = await stageStore(place, await readStore(outDir), replacement);
    if (staged === 0 && attempt > 0) return;
    await replacement.commit();
  }
}

/**
 * Stages what follows from these kernels and is not there yet: the bundles, then the registries, which name only
 * what is there.
 *
 * @param fresh modules of folders that are staged themselves
 * @returns how many files were staged
 */
async function stageStore(
  place: Place,
  kernels: readonly StoredKernel[],
  replacement: Replacement,
  fresh: ReadonlyMap<string, ReadonlyMap<string, string>> = new Map(),
  signal?: AbortSignal,
): Promise<number> {
  const outDir = resolve(place.outDir);
  const registry = registryText(kernels);
  let staged = 0;
  const stage = async (path: string, text: string) => {
    await replacement.file(path, text, signal);
    staged++;
  };
  if (place.compiledDir !== undefined) {
    const compiledDir = resolve(place.compiledDir);
    for (const { folder } of kernels) {
      if (compiledDir === outDir && fresh.has(folder)) continue;
      const files = fresh.get(folder) ?? (await modulesIn(join(outDir, folder)));
      if (!files.has('index.ts')) continue;
      const path = join(compiledDir, folder, 'index.js');
      const present = await readFile(path, 'utf8').catch(() => '');
      if (!present.startsWith(`${bundleKey(files)}\n`)) await stage(path, bundle(files));
    }
    const script = javascript(registry, (path) => path.replace(/\.ts$/, '.js'));
    if (await holdsOther(join(compiledDir, 'registry.js'), script)) {
      await stage(join(compiledDir, 'registry.js'), script);
    }
  }
  if (await holdsOther(join(outDir, 'registry.ts'), registry)) {
    await stage(join(outDir, 'registry.ts'), registry);
  }
  return staged;
}

async function modulesIn(folder: string): Promise<Map<string, string>> {
  const names = (await readdir(folder))
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .sort();
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
  return new Map(names.map((name, i) => [name, texts[i]!]));
}

async function holdsOther(path: string, text: string): Promise<boolean> {
  return (await readFile(path, 'utf8').catch(() => null)) !== text;
}
