/**
 * Before tests: Debian's kernels of which no release is committed any more, because the archive has moved on, are
 * extracted into `generated/`, so that guests with these kernels can be read. What is committed is left as it is.
 */
import process from 'node:process';
import { defaultPlace, generate } from '../codegen/index.ts';
import { readStore } from '../codegen/store.ts';
import { openKernelFile } from '../extractor/elf/open.ts';
import { extractLayout } from '../extractor/extract.ts';
import { cachedKernels } from './cache.ts';
import { generatedDirectory } from './paths.ts';

const stored = new Set((await readStore(generatedDirectory)).map(({ release }) => release));
for (const { release, vmlinux } of cachedKernels()) {
  if (stored.has(release)) continue;
  await using kernel = await openKernelFile(vmlinux);
  const layout = await extractLayout(kernel, { engine: 'auto', selection: { kind: 'scheduler' } });
  const { folder } = await generate(layout, defaultPlace());
  process.stdout.write(
    `generated/${folder}: new, the archive has moved on; \`make layouts\` and commit it\n`,
  );
}
