/** Build step after the compiler: makes the compiled form of the checkout's layouts. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { updateStore } from './generate.ts';
import { STRUCTURES } from './modules.ts';
import { defaultPlace } from './place.ts';
import { readStore } from './store.ts';

const place = defaultPlace();
await updateStore(place);

// Do not ship what `generated/` no longer has.
if (place.compiledDir !== undefined && place.compiledDir !== place.outDir) {
  const kernels = await readStore(place.outDir);
  const kept = new Set(['registry.js', STRUCTURES, ...kernels.map(({ folder }) => folder)]);
  const structures = new Set(
    kernels.flatMap((kernel) => kernel.structures.map((file) => file.replace(/ts$/, 'd.ts'))),
  );
  for (const [folder, names] of [
    [place.compiledDir, kept],
    [join(place.compiledDir, STRUCTURES), structures],
  ] as const) {
    for (const name of await readdir(folder)) {
      if (!names.has(name)) await rm(join(folder, name), { recursive: true });
    }
  }
}
