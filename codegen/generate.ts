import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { KernelLayout } from '../extractor/contract.ts';
import { bundle, bundleKey, javascript } from './bundle.ts';
import { kernelModules } from './modules.ts';
import type { Place } from './place.ts';
import { printModules } from './print.ts';
import { recover, replaceFile, replaceFolder, writing } from './replace.ts';
import { type Scheduler, schedulersOf } from './schedulers.ts';
import { folderFor, readStore, registryText } from './store.ts';
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
 * Writes a kernel's modules and its entry in the registry. Everything is printed before anything is written; the
 * folder is replaced as a whole, the registry after it. The same layout gives the same bytes.
 *
 * @throws ExtractError `layout-invalid`, `no-space`, `output-failed`, `interrupted`; the store is then as it was
 */
export async function generate(
  layout: KernelLayout,
  place: Place & { signal?: AbortSignal },
): Promise<Written> {
  const valid = validateLayout(layout);
  const outDir = resolve(place.outDir);
  const folder = await writing(outDir, async () => {
    await recover(outDir);
    return folderFor(valid, await readStore(outDir));
  });
  const files = printModules(kernelModules(valid));
  const sameFolder = place.compiledDir !== undefined && resolve(place.compiledDir) === outDir;
  const all = sameFolder ? new Map([...files, ['index.js', bundle(files)]]) : files;
  const changed = await replaceFolder(outDir, folder, all, place.signal);
  await updateStore(place);
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
    const kernels = await readStore(outDir);
    const text = registryText(kernels);
    const wrote = await replaceWhereOther(join(outDir, 'registry.ts'), text);
    if (!wrote && attempt > 0) return;
    if (place.compiledDir !== undefined) {
      const folders = kernels.map((kernel) => kernel.folder);
      await compileStore(outDir, resolve(place.compiledDir), folders, text);
    }
  }
}

/** Bundles what has no bundle of its present modules; then the registry, which names only what is there. */
async function compileStore(
  outDir: string,
  compiledDir: string,
  folders: readonly string[],
  registry: string,
) {
  for (const folder of folders) {
    const files = await modulesIn(join(outDir, folder));
    if (!files.has('index.ts')) continue;
    const path = join(compiledDir, folder, 'index.js');
    const present = await readFile(path, 'utf8').catch(() => '');
    if (present.startsWith(`${bundleKey(files)}\n`)) continue;
    await mkdir(join(compiledDir, folder), { recursive: true });
    await replaceFile(path, bundle(files));
  }
  await mkdir(compiledDir, { recursive: true });
  const script = javascript(registry, (path) => path.replace(/\.ts$/, '.js'));
  await replaceWhereOther(join(compiledDir, 'registry.js'), script);
}

async function modulesIn(folder: string): Promise<Map<string, string>> {
  const names = (await readdir(folder))
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .sort();
  const texts = await Promise.all(names.map((name) => readFile(join(folder, name), 'utf8')));
  return new Map(names.map((name, i) => [name, texts[i]!]));
}

async function replaceWhereOther(path: string, text: string): Promise<boolean> {
  if ((await readFile(path, 'utf8').catch(() => null)) === text) return false;
  await replaceFile(path, text);
  return true;
}
