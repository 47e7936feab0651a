/** Debug information, through libdwarf: the sections of an object file one after the other, each with its length. */
import { dwarfEngine } from '../../../extractor/dwarf/engine.ts';
import { SECTIONS, seedSections } from '../../extractor/dwarf/fuzz.ts';
import { memoryFile } from '../../extractor/dwarf/memory-file.ts';

export async function seeds(): Promise<Buffer[]> {
  return (await seedSections()).map((sections) =>
    Buffer.concat(
      SECTIONS.flatMap((name) => {
        const bytes = sections[name] ?? new Uint8Array();
        const length = Buffer.alloc(4);
        length.writeUInt32LE(bytes.length);
        return [length, bytes];
      }),
    ),
  );
}

export async function read(bytes: Buffer): Promise<void> {
  const sections: Record<string, Uint8Array> = {};
  let at = 0;
  for (const name of SECTIONS) {
    if (at + 4 > bytes.length) break;
    const length = bytes.readUInt32LE(at);
    const content = bytes.subarray(at + 4, at + 4 + length);
    if (content.length > 0) sections[name] = Uint8Array.from(content);
    at += 4 + content.length;
  }
  await dwarfEngine.extract(memoryFile(sections), { structs: 'all', enums: ['state'], required: [] });
}
