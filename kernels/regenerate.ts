/**
 * `make layouts` extracts every kernel on this machine into `generated/`. Layouts of Debian's earlier point releases
 * stay, since guests may still run them; those of earlier builds of our own guest are removed, since nobody runs it.
 */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import process from 'node:process';
import { defaultPlace, generate } from '../codegen/index.ts';
import { readStore } from '../codegen/store.ts';
import { openKernelFile } from '../extractor/elf/open.ts';
import { extractLayout } from '../extractor/extract.ts';
import { generatedDirectory } from './paths.ts';
import { subjects } from './subjects.ts';

const all = subjects();
const layouts = [];
for (const { id, file } of all) {
  await using kernel = await openKernelFile(file);
  layouts.push({
    id,
    layout: await extractLayout(kernel, { engine: 'auto', selection: { kind: 'scheduler' } }),
  });
}

const ours = layouts.filter(({ id }) => id.startsWith('o1-')).map(({ layout }) => layout.kernel);
for (const stored of await readStore(generatedDirectory)) {
  const isOurs = ours.some(({ release }) => release === stored.release);
  if (!isOurs || ours.some(({ buildId }) => buildId === stored.buildId)) continue;
  await rm(path.join(generatedDirectory, stored.folder), { recursive: true });
  process.stdout.write(`${stored.folder}: removed, its guest is no longer built\n`);
}
for (const { id, layout } of layouts) {
  const { folder, changed } = await generate(layout, defaultPlace());
  process.stdout.write(`${id}: ${folder}, ${changed ? 'written' : 'unchanged'}\n`);
}
