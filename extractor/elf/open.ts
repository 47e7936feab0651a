import { createHash } from 'node:crypto';
import { ExtractError } from '../error.ts';
import { bannerAt, findBanner, releaseOf } from './banner.ts';
import { FileSource } from './byte-source.ts';
import { type ElfImage, isElf, readElfImage, type SectionHeader } from './image.ts';
import type { KernelFile, KernelSymbol, SectionData } from './kernel-file.ts';
import { readBuildId } from './notes.ts';
import { openSection, plainName } from './section.ts';
import { SymbolTable } from './symbol-table.ts';

export interface OpenOptions {
  /** Bytes done and in all of a slow step, and its name. */
  progress?: (done: number, total: number, what: string) => void;
  signal?: AbortSignal;
}

/**
 * Opens a kernel in any form.
 * @throws ExtractError
 */
export async function openKernelFile(path: string, options: OpenOptions = {}): Promise<KernelFile> {
  void options;
  const source = FileSource.open(path);
  try {
    const start = source.read(0, Math.min(64, source.size));
    if (isElf(start)) return new OpenedKernel(path, readElfImage(source));
    throw new ExtractError('not-a-kernel', `${path} is no kernel`, { path });
  } catch (error) {
    source.close();
    throw error;
  }
}

class OpenedKernel implements KernelFile {
  readonly path: string;
  readonly elfPath: string | null;
  readonly #image: ElfImage;
  readonly #sections = new Map<string, SectionData>();
  #symbols: SymbolTable | null | undefined;
  #banner: string | null | undefined;

  constructor(path: string, image: ElfImage) {
    this.path = path;
    this.elfPath = path;
    this.#image = image;
  }

  get sectionNames(): readonly string[] {
    return this.#image.headers.slice(1).map((header) => plainName(header.name));
  }

  get buildId(): string | null {
    for (const name of ['.notes', '.note.gnu.build-id']) {
      const section = this.section(name);
      const id = section && readBuildId(section);
      if (id) return id;
    }
    return null;
  }

  section(name: string): SectionData | null {
    let found = this.#sections.get(name);
    if (!found) {
      const header = this.#image.headers.find((header) => plainName(header.name) === name);
      if (!header) return null;
      found = openSection(this.#image, header);
      this.#sections.set(name, found);
    }
    return found;
  }

  banner(): string | null {
    this.#banner ??= this.#findBanner();
    return this.#banner;
  }

  #findBanner(): string | null {
    const symbol = this.lookup(['linux_banner']).get('linux_banner');
    const home = symbol?.section ? this.section(symbol.section) : null;
    const banner = symbol && home && bannerAt(home, Number(symbol.address - home.address));
    if (banner) return banner;
    const rodata = this.section('.rodata');
    return rodata && findBanner(rodata);
  }

  release(): string | null {
    return releaseOf(this.banner() ?? '');
  }

  symbols(): Iterable<KernelSymbol> {
    return this.#table()?.all() ?? [];
  }

  lookup(names: Iterable<string>): Map<string, KernelSymbol> {
    const found = new Map<string, KernelSymbol>();
    const ambiguous = new Set<string>();
    for (const symbol of this.#table()?.named(names) ?? []) {
      const other = found.get(symbol.name);
      if (!other || (other.local && !symbol.local)) found.set(symbol.name, symbol);
      else if (other.local && symbol.local && other.address !== symbol.address) ambiguous.add(symbol.name);
    }
    for (const name of ambiguous) if (found.get(name)!.local) found.delete(name);
    return found;
  }

  config(): Record<string, string> | null {
    return null;
  }

  async sha256(): Promise<string> {
    const hash = createHash('sha256');
    const { source } = this.#image;
    for (let at = 0; at < source.size; at += 1 << 20) {
      hash.update(source.read(at, Math.min(1 << 20, source.size - at)));
    }
    return hash.digest('hex');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#image.source.close();
  }

  #table(): SymbolTable | null {
    if (this.#symbols === undefined) {
      const { headers } = this.#image;
      const symtab = headers.find((header: SectionHeader) => header.type === 'symtab');
      const strtab = symtab && headers[symtab.link];
      this.#symbols =
        symtab && strtab
          ? new SymbolTable(
              openSection(this.#image, symtab),
              openSection(this.#image, strtab),
              headers,
              this.path,
            )
          : null;
    }
    return this.#symbols;
  }
}
