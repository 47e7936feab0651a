import { readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { KernelLayout } from '../extractor/contract.ts';
import { compiledKey } from '../runtime/layout/compiled.ts';
import { moduleOf } from '../runtime/layout/module.ts';
import { type Scheduler, schedulersOf } from '../runtime/layout/schedulers.ts';
import { compileKernel } from './compiled.ts';
import { kernelText, STRUCTURES } from './modules.ts';
import type { StorePlace } from './place.ts';
import { Replacement, recover, writing } from './replace.ts';
import {
  folderFor,
  readStore,
  registryScript,
  registryText,
  type StoredKernel,
  sortKernels,
  storedKernel,
} from './store.ts';
import { validateLayout } from './validate.ts';

/** Result of a generation. */
export interface Written {
  /** The kernel's folder in the store: its release, or `<release>+<build-id>` for another build of it. */
  folder: string;
  /** The folder's full path. */
  path: string;
  /** False if the store already had exactly these bytes. */
  changed: boolean;
  schedulers: Scheduler[];
}

/**
 * Writes a kernel's modules and its entry in the registry. Everything is printed before anything is written, and
 * written before anything is replaced. The same layout gives the same bytes.
 *
 * @throws ExtractError `layout-invalid`, `no-space`, `output-failed`, `interrupted`; the store is then unchanged
 */
export async function generate(
  layout: KernelLayout,
  place: StorePlace & { signal?: AbortSignal },
): Promise<Written> {
  const valid = validateLayout(layout);
  const outDir = resolve(place.outDir);
  const { folder, kernels } = await writing(outDir, async () => {
    await recover(outDir);
    await recover(join(outDir, STRUCTURES));
    const kernels = await readStore(outDir);
    return { folder: folderFor(valid, kernels), kernels };
  });
  const text = kernelText(moduleOf(valid));
  const own = storedKernel(folder, text.index)!;
  const { signal } = place;
  using replacement = new Replacement();
  const texts = new Map([...text.structures.values()].map(({ file, text }) => [file, text]));
  const structure = (file: string) => texts.get(file)!;
  let changed = await stageStructures(outDir, texts, replacement, signal);
  const files = new Map([['index.ts', text.index]]);
  if (sameFolder(place)) files.set('index.js', compileKernel(text.index, structure).script);
  if (await replacement.folder(join(outDir, folder), files, signal)) changed++;
  const wanted = sortKernels([...kernels.filter((kernel) => kernel.folder !== folder), own]);
  await stageStore(place, wanted, replacement, { folder, index: text.index, structure }, signal);
  await replacement.commit(signal);
  await settle(place, texts, wanted);
  return {
    folder,
    path: join(outDir, folder),
    changed: changed > 0,
    schedulers: schedulersOf(valid.structs),
  };
}

/** Stages the structures that the store lacks. @returns their number */
async function stageStructures(
  outDir: string,
  texts: ReadonlyMap<string, string>,
  replacement: Replacement,
  signal?: AbortSignal,
): Promise<number> {
  let staged = 0;
  for (const [file, text] of texts) {
    const path = join(outDir, STRUCTURES, file);
    if (!(await holdsOther(path, text))) continue;
    await replacement.file(path, text, signal);
    staged++;
  }
  return staged;
}

/**
 * Repairs the effects of other extractions that ended meanwhile: the registry written last may lack a kernel, or a
 * structure may be gone because no kernel needed it at that time.
 */
async function settle(
  place: StorePlace,
  texts: ReadonlyMap<string, string>,
  wanted: readonly StoredKernel[],
): Promise<void> {
  const outDir = resolve(place.outDir);
  await sweep(outDir);
  using replacement = new Replacement();
  if ((await stageStructures(outDir, texts, replacement)) > 0) await replacement.commit();
  if (registryText(await readStore(outDir)) !== registryText(wanted)) await updateStore(place);
}

/**
 * Removes structures that no kernel of a store uses any more. One that another extraction began to use meanwhile is
 * restored; that extraction checks for its structures again once its kernel is in place.
 */
export async function sweep(outDir: string): Promise<void> {
  const folder = join(outDir, STRUCTURES);
  const needed = async () => new Set((await readStore(outDir)).flatMap(({ structures }) => structures));
  const present = await readdir(folder).catch(() => [] as string[]);
  const before = await needed();
  const idle = present.filter((name) => /^[^.].*\.ts$/.test(name) && !before.has(name));
  if (idle.length === 0) return;
  await writing(folder, async () => {
    const texts = await Promise.all(
      idle.map((name) => readFile(join(folder, name), 'utf8').catch(() => null)),
    );
    await Promise.all(idle.map((name) => rm(join(folder, name), { force: true })));
    const after = await needed();
    for (const [i, name] of idle.entries()) {
      if (texts[i] != null && after.has(name)) await writeFile(join(folder, name), texts[i]);
    }
  });
}

/**
 * Updates the registry and the compiled form to match a store's folders.
 *
 * Two extractions may end at the same time, and the slower writer of the registry may have read the folders first. So
 * it checks again after writing, until the files match the folders.
 *
 * @throws ExtractError `no-space`, `output-failed`
 */
export async function updateStore(place: StorePlace): Promise<void> {
  const outDir = resolve(place.outDir);
  await mkdir(outDir, { recursive: true });
  for (let attempt = 0; attempt < 10; attempt++) {
    using replacement = new Replacement();
    const staged = await stageStore(place, await readStore(outDir), replacement);
    if (staged === 0 && attempt > 0) return;
    await replacement.commit();
  }
}

/** A kernel that is itself being staged. */
interface Fresh {
  readonly folder: string;
  readonly index: string;
  readonly structure: (file: string) => string;
}

/**
 * Stages what is missing for these kernels: first the compiled form, then the registries, which name only existing
 * files.
 *
 * @returns number of files staged
 */
async function stageStore(
  place: StorePlace,
  kernels: readonly StoredKernel[],
  replacement: Replacement,
  fresh?: Fresh,
  signal?: AbortSignal,
): Promise<number> {
  const outDir = resolve(place.outDir);
  const registry = registryText(kernels);
  const wanted = new Map<string, string>();
  if (place.compiledDir !== undefined) {
    const compiledDir = resolve(place.compiledDir);
    for (const { folder } of kernels) {
      const isFresh = folder === fresh?.folder;
      if (isFresh && sameFolder(place)) continue;
      const index = isFresh ? fresh.index : await readFile(join(outDir, folder, 'index.ts'), 'utf8');
      const path = join(compiledDir, folder, 'index.js');
      const present = await readFile(path, 'utf8').catch(() => '');
      if (present.startsWith(`${compiledKey(index)}\n`)) continue;
      const structure = isFresh
        ? fresh.structure
        : (file: string) => readFileSync(join(outDir, STRUCTURES, file), 'utf8');
      const compiled = compileKernel(index, structure);
      if (!sameFolder(place)) {
        for (const [file, text] of compiled.structures) wanted.set(join(compiledDir, STRUCTURES, file), text);
        wanted.set(join(compiledDir, folder, 'index.d.ts'), compiled.types);
      }
      wanted.set(path, compiled.script);
    }
    wanted.set(join(compiledDir, 'registry.js'), registryScript(registry));
  }
  wanted.set(join(outDir, 'registry.ts'), registry);
  let staged = 0;
  for (const [path, text] of wanted) {
    if (!(await holdsOther(path, text))) continue;
    await replacement.file(path, text, signal);
    staged++;
  }
  return staged;
}

/** In a user's store both forms are side by side, and the TypeScript provides the types. */
function sameFolder({ outDir, compiledDir }: StorePlace): boolean {
  return compiledDir !== undefined && resolve(compiledDir) === resolve(outDir);
}

async function holdsOther(path: string, text: string): Promise<boolean> {
  return (await readFile(path, 'utf8').catch(() => null)) !== text;
}
