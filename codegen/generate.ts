import { mkdir, readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { KernelLayout } from '../extractor/contract.ts';
import { compileAll, compileModule } from './compile.ts';
import { kernelModules } from './modules.ts';
import type { Place } from './place.ts';
import { printModules } from './print.ts';
import { replaceFile, replaceFolder } from './replace.ts';
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
  const { signal } = place;
  const outDir = resolve(place.outDir);
  const compiledDir = place.compiledDir && resolve(place.compiledDir);
  const folder = folderFor(valid, await readStore(outDir));
  const files = printModules(kernelModules(valid));
  const compiled = compiledDir ? compileAll(files) : new Map<string, string>();
  let changed: boolean;
  if (compiledDir === outDir) {
    changed = await replaceFolder(outDir, folder, new Map([...files, ...compiled]), { signal });
  } else {
    changed = await replaceFolder(outDir, folder, files, { signal });
    if (compiledDir) await replaceFolder(compiledDir, folder, compiled, { keep: isDeclaration });
  }
  await writeRegistry(outDir, compiledDir);
  return {
    folder,
    path: join(outDir, folder),
    files: [...files.keys()],
    changed,
    schedulers: schedulersOf(valid.structs),
  };
}

/**
 * Brings the registry in line with the folders. Two extractions may end at once, and the slower writer may have
 * looked first: so look again after writing, until what is there is what follows from the folders.
 */
export async function writeRegistry(outDir: string, compiledDir?: string): Promise<void> {
  await mkdir(outDir, { recursive: true });
  const path = join(outDir, 'registry.ts');
  for (let attempt = 0; attempt < 10; attempt++) {
    const kernels = await readStore(outDir);
    const text = registryText(kernels);
    const present = await readFile(path, 'utf8').catch(() => null);
    if (present === text && attempt > 0) break;
    if (present !== text) await replaceFile(path, text);
    if (compiledDir)
      await compileStore(
        outDir,
        compiledDir,
        kernels.map((kernel) => kernel.folder),
        text,
      );
  }
}

/** The registry as JavaScript, with every kernel of it that was never compiled (a build may be older than a pull). */
async function compileStore(
  outDir: string,
  compiledDir: string,
  folders: readonly string[],
  text: string,
): Promise<void> {
  for (const folder of folders) {
    const present = await readdir(join(compiledDir, folder)).catch(() => [] as string[]);
    if (present.includes('index.js')) continue;
    const names = (await readdir(join(outDir, folder))).filter(
      (name) => name.endsWith('.ts') && !isDeclaration(name),
    );
    const files = new Map<string, string>();
    for (const name of names) files.set(name, await readFile(join(outDir, folder, name), 'utf8'));
    const all = compiledDir === outDir ? new Map([...files, ...compileAll(files)]) : compileAll(files);
    await replaceFolder(compiledDir, folder, all, { keep: isDeclaration });
  }
  const path = join(compiledDir, 'registry.js');
  const script = compileModule(text);
  if ((await readFile(path, 'utf8').catch(() => null)) !== script) {
    await mkdir(compiledDir, { recursive: true });
    await replaceFile(path, script);
  }
}

function isDeclaration(name: string): boolean {
  return name.endsWith('.d.ts');
}
