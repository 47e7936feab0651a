import type { ElfImage, SectionHeader } from './image.ts';
import type { SectionData } from './kernel-file.ts';
import { readBuildId } from './notes.ts';
import { linkedSection, needsLinking } from './relocation.ts';
import { openSection, plainName } from './section.ts';

/**
 * The sections of a kernel across all its files, by name. If several files have one, the last with bytes for it wins: a
 * stripped file and its debug file complement each other.
 */
export class SectionSet {
  readonly #images: readonly ElfImage[];
  readonly #home = new Map<string, { image: ElfImage; header: SectionHeader }>();
  readonly #opened = new Map<string, SectionData>();

  /** @param alone sections that are a whole file, such as raw BTF */
  constructor(images: readonly ElfImage[], alone: readonly SectionData[] = []) {
    this.#images = images;
    for (const section of alone) this.#opened.set(section.name, section);
    for (const image of images) {
      const here = new Set<string>();
      for (const header of image.headers) {
        const name = plainName(header.name);
        // If a file has two of one name, the first counts, as for readelf and gdb.
        if (header.index === 0 || name === '' || here.has(name)) continue;
        if (!hasBytes(header) && this.#home.has(name)) continue;
        here.add(name);
        this.#home.set(name, { image, header });
      }
    }
  }

  get names(): readonly string[] {
    return [...new Set([...this.#home.keys(), ...this.#opened.keys()])];
  }

  /** Whether any file has bytes of this section. */
  has(name: string): boolean {
    const home = this.#home.get(name);
    return home !== undefined && hasBytes(home.header);
  }

  /** Whether the section exists but no file has its bytes. */
  lacksBytes(name: string): boolean {
    return this.#home.get(name)?.header.type === 'nobits';
  }

  /** @throws ExtractError `corrupt-elf`, `unsupported-compression`, `unsupported-relocation` */
  get(name: string): SectionData | null {
    const opened = this.#opened.get(name);
    if (opened) return opened;
    const home = this.#home.get(name);
    if (!home) return null;
    const { image, header } = home;
    const section = needsLinking(image, header) ? linkedSection(image, name) : openSection(image, header);
    this.#opened.set(name, section);
    return section;
  }

  /** Path of the ELF file with the debug information, or of the image if there is none. */
  elfLocation(): string | null {
    const image = this.has('.debug_info') ? this.#home.get('.debug_info')!.image : this.#images[0];
    return image?.source.location ?? null;
  }

  /** The first symbol table with strings, beginning with the last file. */
  symbolTable(): { image: ElfImage; symtab: SectionHeader } | null {
    for (const image of this.#images.toReversed()) {
      const symtab = image.headers.find((header) => header.type === 'symtab');
      const strtab = symtab && image.headers[symtab.link];
      if (symtab && strtab?.type === 'strtab') {
        return { image, symtab };
      }
    }
    return null;
  }
}

/** GNU build-id in lower-case hex, from the kernel's own `.notes` or the linker's section; null without one. */
export function buildIdOf(sections: SectionSet): string | null {
  for (const name of ['.notes', '.note.gnu.build-id']) {
    const section = sections.get(name);
    const id = section && readBuildId(section);
    if (id) return id;
  }
  return null;
}

function hasBytes(header: SectionHeader): boolean {
  return header.index !== 0 && header.type !== 'null' && header.type !== 'nobits' && header.size > 0;
}
