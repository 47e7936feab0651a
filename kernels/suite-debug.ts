import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { KernelLayout } from '../extractor/contract.ts';
import { openKernelFile } from '../extractor/elf/open.ts';
import { extractLayout } from '../extractor/extract.ts';
import { download, show } from './apt.ts';
import { checksums, extractFile } from './deb.ts';
import { needsDigest } from './needs.ts';
import { aptFor, INDEX_MS, refresh, type SuiteKernel, suitesCache } from './suites.ts';

/** The packages of flavours for clouds have 260 to 360 MB; the others have 1.2 GB each, most of it modules. */
const MAX_PACKAGE_BYTES = 2.4e9;

/**
 * The layout of a suite's kernel by the debug information that Debian has for it, to compare others with. Only the
 * layout is kept: 0.6 GB of debug information per kernel would fill disks.
 *
 * @returns a clause that says why there is none, if there is none
 * @throws KernelsError
 */
export async function layoutByDebugPackage({
  release,
  suite,
  vmlinuz,
}: SuiteKernel): Promise<KernelLayout | string> {
  const file = path.join(path.dirname(vmlinuz), `dwarf-${needsDigest()}.json`);
  if (existsSync(file)) return JSON.parse(await readFile(file, 'utf8')) as KernelLayout;
  const apt = await aptFor(suite, suitesCache);
  await refresh(apt, suite, suitesCache, INDEX_MS);
  const found = (await show([`linux-image-${release}-dbg`], apt)).values().next().value;
  if (found === undefined) return 'no debug package';
  if (found.size > MAX_PACKAGE_BYTES)
    return `debug package of ${(found.size / 1e9).toFixed(1)} GB not fetched`;
  const folder = path.join(suitesCache, 'debug', release);
  await mkdir(folder, { recursive: true });
  try {
    const deb = await download(found, path.join(suitesCache, 'download'), { apt });
    const member = [...(await checksums(deb)).keys()].find((name) => /(^|\/)vmlinux(-[^/]*)?$/.test(name));
    if (member === undefined) return 'no vmlinux in its debug package';
    const vmlinux = path.join(folder, 'vmlinux');
    await extractFile(deb, `./${member}`, vmlinux);
    await using kernel = await openKernelFile(vmlinux, { debugRoots: [] });
    const layout = await extractLayout(kernel, { engine: 'dwarf', selection: { kind: 'scheduler' } });
    await writeFile(file, JSON.stringify(layout));
    await rm(deb);
    return layout;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
