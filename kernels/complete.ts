/**
 * Before tests: adds the layouts of fetched kernels that `generated/` lacks. Debian kernels whose committed releases
 * have left the archive are extracted into `generated/`; committed layouts are left as they are. Kernels of the suites
 * have their own store, which is not committed.
 */
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import process from 'node:process';
import { defaultPlace, generate, type StorePlace } from '../codegen/index.ts';
import { userPlace } from '../codegen/place.ts';
import { readStore } from '../codegen/store.ts';
import { openKernelFile } from '../extractor/elf/open.ts';
import { extractLayout } from '../extractor/extract.ts';
import { cachedKernels } from './cache.ts';
import { needsDigest } from './needs.ts';
import { generatedDirectory } from './paths.ts';
import { type ExtractionCost, extractionFile, extractionOf, suiteKernels, suitesData } from './suites.ts';

async function add(file: string, place: StorePlace): Promise<{ folder: string; extraction: ExtractionCost }> {
  const begin = performance.now();
  await using kernel = await openKernelFile(file);
  const layout = await extractLayout(kernel, { engine: 'auto', selection: { kind: 'scheduler' } });
  const seconds = (performance.now() - begin) / 1000;
  const { folder } = await generate(layout, place);
  const structs = Object.values(layout.structs);
  const extraction = {
    seconds,
    structures: structs.length,
    symbols: Object.keys(layout.symbols).length,
    asked,
  };
  return { folder, extraction };
}

const asked = needsDigest();

async function releases(store: string): Promise<ReadonlySet<string>> {
  return existsSync(store) ? new Set((await readStore(store)).map(({ release }) => release)) : new Set();
}

const committed = await releases(generatedDirectory);
for (const { release, vmlinux } of cachedKernels()) {
  if (committed.has(release)) continue;
  const { folder } = await add(vmlinux, defaultPlace());
  process.stdout.write(
    `generated/${folder}: new, the archive has moved on; \`make layouts\` and commit it\n`,
  );
}

const place = userPlace({ XDG_DATA_HOME: suitesData });
const known = await releases(place.outDir);
for (const kernel of suiteKernels()) {
  if (known.has(kernel.release) && extractionOf(kernel)?.asked === asked) continue;
  const { extraction } = await add(kernel.vmlinux ?? kernel.vmlinuz, place);
  await writeFile(extractionFile(kernel), JSON.stringify(extraction));
  process.stdout.write(`${kernel.release}: extracted in ${extraction.seconds.toFixed(1)} s\n`);
}
