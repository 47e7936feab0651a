import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';

/** What this process is making, by path. */
const making = new Map<string, Promise<string>>();

/**
 * Makes a file or folder of a cache if it is missing; it appears only once complete. Callers in this process share one
 * making; several processes may each make it, but all find it complete.
 * @param make writes it to the given path, which nobody else uses
 * @returns `place`
 * @throws what `make` throws; then nothing is there, and the next call tries again
 */
export function makeOnce(place: string, make: (fresh: string) => Promise<unknown>): Promise<string> {
  const known = making.get(place);
  if (known !== undefined) return known;
  const made = look(place, make).finally(() => making.delete(place));
  making.set(place, made);
  return made;
}

async function look(place: string, make: (fresh: string) => Promise<unknown>): Promise<string> {
  return (await exists(place)) ? place : replaceWhole(place, make);
}

/** Like {@link makeOnce}, but makes it again even if it exists. An existing folder stays. */
export async function replaceWhole(
  place: string,
  make: (fresh: string) => Promise<unknown>,
): Promise<string> {
  await mkdir(path.dirname(place), { recursive: true });
  // In the same folder, so that moving it is atomic.
  const own = await mkdtemp(`${place}.making-`);
  try {
    const fresh = path.join(own, path.basename(place));
    await make(fresh);
    await rename(fresh, place).catch(async (error: NodeJS.ErrnoException) => {
      // For a folder, another process was faster; a file simply replaces the other.
      const isTaken = error.code === 'ENOTEMPTY' || error.code === 'EEXIST';
      if (!isTaken) throw error;
    });
    return place;
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

async function exists(place: string): Promise<boolean> {
  return stat(place).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    },
  );
}
