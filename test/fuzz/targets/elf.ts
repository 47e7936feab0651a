/** Kernel files and packed images: headers, sections, notes, symbols, every compression. */
import { openKernelFile } from '../../../extractor/elf/open.ts';
import { seeds as kernels } from '../../extractor/elf/fuzz.ts';
import { scratchFile } from '../scratch-file.ts';

export function seeds(): Buffer[] {
  return kernels().map(({ bytes, wrap }) => wrap?.(bytes) ?? bytes);
}

export async function read(bytes: Buffer): Promise<void> {
  const path = scratchFile('kernel', bytes);
  await using file = await openKernelFile(path, { debugRoots: [] });
  for (const name of file.sectionNames) file.section(name)?.read();
  file.banner();
  file.config();
  file.lookup(['runqueues', 'linux_banner']);
  for (const _ of file.symbols());
}
