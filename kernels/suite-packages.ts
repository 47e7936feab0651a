import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import { download, show } from './apt.ts';
import { KernelsError } from './error.ts';
import { aptFor, INDEX_MS, refresh, suitesCache } from './suites.ts';

/**
 * Unpacks packages of another Debian release into the cache, without installing anything.
 * @returns the folder that serves as their `/`
 * @throws KernelsError `package-not-found`
 */
export async function suitePackages(suite: string, names: readonly string[]): Promise<string> {
  const folder = path.join(suitesCache, 'packages', `${suite}-${[...names].sort().join('-')}`);
  if (existsSync(folder)) return folder;
  const apt = await aptFor(suite, suitesCache);
  await refresh(apt, suite, suitesCache, INDEX_MS);
  const packages = await show(names, apt);
  const incoming = `${folder}.${process.pid}.new`;
  await mkdir(incoming, { recursive: true });
  try {
    for (const name of names) {
      const found = packages.get(name);
      if (found === undefined)
        throw new KernelsError('package-not-found', `${suite} has no package ${name}`, { name });
      const deb = await download(found, path.join(suitesCache, 'download'), { apt });
      await execa('dpkg-deb', ['-x', deb, incoming]);
      await rm(deb);
    }
    await rename(incoming, folder);
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
  return folder;
}
