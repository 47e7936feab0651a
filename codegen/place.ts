import { accessSync, constants, existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

/** Where generated layouts go. */
export interface StorePlace {
  /** The store: a folder with `registry.ts` and one folder per kernel. */
  outDir: string;
  /** Folder for the same modules as JavaScript, for a compiled program. If absent, none are written. */
  compiledDir?: string;
}

/**
 * The store of this installation. In a checkout: `generated/`, and `dist/generated/` once `dist/` is built, so the
 * compiled program can use a new extraction at once. For an installed package (below `node_modules`, or not writable):
 * `$XDG_DATA_HOME/domsched/layouts`, with both forms side by side.
 */
export function defaultPlace(): StorePlace {
  const here = fileURLToPath(new URL('.', import.meta.url));
  const root = import.meta.url.endsWith('.ts') ? join(here, '..') : join(here, '..', '..');
  if (!/[/\\]node_modules[/\\]/.test(root) && writable(join(root, 'generated'))) {
    const outDir = join(root, 'generated');
    return existsSync(join(root, 'dist'))
      ? { outDir, compiledDir: join(root, 'dist', 'generated') }
      : { outDir };
  }
  return userPlace();
}

/** The user's own store. Node strips no types below `node_modules`, so it has JavaScript beside the TypeScript. */
export function userPlace(env: NodeJS.ProcessEnv = process.env): StorePlace {
  // XDG Base Directory Specification: an empty or relative value counts as unset.
  const data = env.XDG_DATA_HOME?.startsWith('/')
    ? env.XDG_DATA_HOME
    : join(env.HOME ?? homedir(), '.local', 'share');
  const outDir = join(data, 'domsched', 'layouts');
  return { outDir, compiledDir: outDir };
}

function writable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
