import { existsSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { KernelLayout } from '../../extractor/contract.ts';
import { DomschedError } from '../error.ts';
import { compiledKey } from './compiled.ts';
import { factsOf, misfit, moduleOf } from './module.ts';
import type { AnyLayout, KernelFacts } from './types.ts';
import { LayoutView } from './view.ts';

/**
 * A kernel with a known layout, wherever that comes from. {@link knownKernels} finds those in stores, {@link kernelOf}
 * makes one from a layout at hand.
 */
export interface KnownKernel extends KernelFacts {
  /** Loads the layout. @throws DomschedError `layout-unknown` if the store has changed in the meantime */
  readonly load: () => Promise<LayoutView>;
}

/** A kernel in a store. */
export interface RegisteredKernel extends KnownKernel {
  /** Its folder in the store: the release, or `<release>+<build-id>` for another build of the same release. */
  readonly folder: string;
  /** The store's path. */
  readonly store: string;
}

/** An entry of a generated `registry.ts`. */
export interface RegistryEntry extends KernelFacts {
  readonly folder: string;
  readonly load: () => Promise<{ readonly layout: AnyLayout }>;
}

const COMPILED_HERE = !import.meta.url.endsWith('.ts');
/** The store of this installation. */
const SHIPPED = fileURLToPath(new URL('../../generated', import.meta.url));

/**
 * Paths of the stores' registries: first this installation's, then the user's. The compiled program reads JavaScript,
 * which loads much faster than TypeScript whose types must be stripped.
 */
export function registryPaths(env: NodeJS.ProcessEnv = process.env): string[] {
  const file = COMPILED_HERE ? 'registry.js' : 'registry.ts';
  const data = env.XDG_DATA_HOME?.startsWith('/')
    ? env.XDG_DATA_HOME
    : join(env.HOME ?? homedir(), '.local', 'share');
  return [join(SHIPPED, file), join(data, 'domsched', 'layouts', file)];
}

/**
 * Every kernel with a known layout, in the stores' order; of equal builds only the first. A missing store counts as
 * empty.
 *
 * @throws DomschedError `layout-unknown` for a registry that cannot be read
 */
export async function knownKernels(paths: readonly string[] = registryPaths()): Promise<RegisteredKernel[]> {
  const stores = await Promise.all(paths.filter((path) => existsSync(path)).map(readRegistry));
  const seen = new Set<string>();
  return stores.flat().filter(({ buildId }) => {
    if (buildId === null) return true;
    const isNew = !seen.has(buildId);
    seen.add(buildId);
    return isNew;
  });
}

/**
 * Makes a known kernel from a layout that was made at run time, for instance from a guest's memory. Writes nothing.
 *
 * @throws DomschedError `layout-unknown` for a layout that does not name its kernel or has members outside their
 *   structures: its source may have lied
 */
export function kernelOf(layout: KernelLayout): KnownKernel {
  const { release, banner } = layout.kernel;
  if (release === null || banner === null) {
    throw refusedLayout(layout, 'it has no banner, by which a kernel is recognized');
  }
  const wrong = misfit(layout);
  if (wrong) throw refusedLayout(layout, `${wrong.path} ${wrong.problem}`);
  const named = { ...layout, kernel: { ...layout.kernel, release, banner } };
  let view: LayoutView | undefined;
  return {
    ...factsOf(named),
    load: async () => {
      view ??= new LayoutView(moduleOf(named));
      return view;
    },
  };
}

function refusedLayout({ kernel, source }: KernelLayout, why: string): DomschedError {
  const { release } = kernel;
  return new DomschedError(
    'layout-unknown',
    `The layout that was read from ${source.file} cannot be used: ${why}. Extract the kernel's vmlinux instead.`,
    { release, source: source.file },
  );
}

async function readRegistry(path: string): Promise<RegisteredKernel[]> {
  const url = pathToFileURL(path);
  // A daemon outlives extractions, and modules are cached by URL.
  url.search = `?${statSync(path).mtimeMs}`;
  let entries: readonly RegistryEntry[];
  try {
    ({ registry: entries } = (await import(url.href)) as { registry: readonly RegistryEntry[] });
  } catch (error) {
    throw new DomschedError(
      'layout-unknown',
      `Cannot read the registry of layouts ${path}; extract any kernel to write it again.`,
      { path },
      { cause: error },
    );
  }
  const store = join(path, '..');
  return entries.map((entry) => ({ ...entry, store, load: () => load(entry, store) }));
}

async function load(entry: RegistryEntry, store: string): Promise<LayoutView> {
  const refuse = (why: string, cause?: unknown) =>
    new DomschedError(
      'layout-unknown',
      `The layout of kernel ${entry.release} in ${join(store, entry.folder)} ${why}. Extract the kernel again.`,
      { release: entry.release, folder: entry.folder, store },
      { cause },
    );
  const { layout } = await moduleFor(entry, store).catch((error: unknown) => {
    throw refuse('cannot be loaded', error);
  });
  const { buildId, banner } = layout.$kernel;
  if (buildId !== entry.buildId || banner !== entry.banner) {
    throw refuse('is of another build than the registry says');
  }
  return new LayoutView(layout);
}

/**
 * Loads a kernel's module. Node takes most of a second to find 150 modules and strip their types, so a program that
 * runs from TypeScript takes the compiled form if it was made from the same text.
 */
async function moduleFor(entry: RegistryEntry, store: string): Promise<{ readonly layout: AnyLayout }> {
  if (!COMPILED_HERE) {
    const compiled =
      store === SHIPPED ? join(SHIPPED, '..', 'dist', 'generated', entry.folder) : join(store, entry.folder);
    const path = join(compiled, 'index.js');
    const [index, script] = await Promise.all(
      [join(store, entry.folder, 'index.ts'), path].map((file) => readFile(file, 'utf8').catch(() => '')),
    );
    if (script!.startsWith(`${compiledKey(index!)}\n`)) return import(pathToFileURL(path).href);
  }
  return entry.load();
}
