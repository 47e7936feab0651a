import { mkdir, mkdtemp, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';

/** What this process is making, by place. */
const making = new Map<string, Promise<string>>();

/**
 * A file or folder of a cache: made when it is not there, complete from the moment it can be seen. Callers in this
 * process share one making; of several processes each may make it, and what they find is whole all the same.
 * @param make writes it to the path that it is given, which nobody else has
 * @returns `place`
 * @throws what `make` throws: then nothing is there, and the next call tries again
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

/** As {@link makeOnce}, for what is made anew although it may be there. A folder that is there already stays. */
export async function replaceWhole(
  place: string,
  make: (fresh: string) => Promise<unknown>,
): Promise<string> {
  await mkdir(path.dirname(place), { recursive: true });
  // In the same folder, so that moving it is one step of one file system.
  const own = await mkdtemp(`${place}.making-`);
  try {
    const fresh = path.join(own, path.basename(place));
    await make(fresh);
    await rename(fresh, place).catch(async (error: NodeJS.ErrnoException) => {
      // Of a folder, another process was faster; a file just takes the other's place.
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
