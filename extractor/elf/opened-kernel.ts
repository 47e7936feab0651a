import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ExtractError } from '../error.ts';
import { findKallsyms } from '../kallsyms/kallsyms.ts';
import { bannerAt, findBanner, releaseOf } from './banner.ts';
import type { BootImage } from './boot-image.ts';
import { asBuffer, type FileSource } from './byte-source.ts';
import { configBeside, findEmbeddedConfig, readConfigFile } from './kernel-config.ts';
import type { Companions, KernelFile, KernelSymbol, SectionData } from './kernel-file.ts';
import type { RunningKernel } from './running-kernel.ts';
import { buildIdOf, type SectionSet } from './section-set.ts';
import { hashFile } from './source-hash.ts';
import { lookupSymbols, type SymbolSource } from './symbol-source.ts';
import { SymbolTable } from './symbol-table.ts';
import { KERNEL_IMAGE, SymbolText } from './symbol-text.ts';

/** How much `.rodata` is searched for kallsyms: a distribution kernel's has 2 to 20 MiB. */
const MAX_RODATA = 128 << 20;

/** Parts of a kernel file after its wrappings are removed. */
export interface Parts {
  path: string;
  options: { symbols?: string | undefined; config?: string | undefined };
  /** Closed with the kernel file. */
  stack: AsyncDisposableStack;
  /** The file as the user named it, with its wrappings. */
  given: FileSource;
  sections: SectionSet;
  companions?: Companions | undefined;
  boot: BootImage | null;
  /** What the running kernel tells about itself, if the file is its own BTF. */
  running?: RunningKernel | null;
}

/** Everything but opening; facts that are expensive to read are found on demand. */
export class OpenedKernel implements KernelFile {
  readonly path: string;
  readonly elfPath: string | null;
  readonly #parts: Parts;
  #buildId: string | null | undefined;
  #banner: string | null | undefined;
  #config: Record<string, string> | null | undefined;
  #symbols: SymbolSource | null | undefined;
  #symbolTable: SymbolTable | null | undefined;

  constructor(parts: Parts) {
    this.path = parts.path;
    this.#parts = parts;
    this.elfPath = parts.sections.elfLocation();
  }

  get buildId(): string | null {
    if (this.#buildId === undefined) {
      this.#buildId = buildIdOf(this.#parts.sections) ?? this.#parts.running?.buildId ?? null;
    }
    return this.#buildId;
  }

  get companions(): Companions | undefined {
    return this.#parts.companions;
  }

  get sectionNames(): readonly string[] {
    return this.#parts.sections.names;
  }

  section(name: string): SectionData | null {
    return this.#parts.sections.get(name);
  }

  banner(): string | null {
    if (this.#banner === undefined) this.#banner = this.#findBanner();
    return this.#banner;
  }

  release(): string | null {
    const banner = this.banner();
    return banner === null ? (this.#parts.boot?.release ?? null) : releaseOf(banner);
  }

  symbols(): Iterable<KernelSymbol> {
    return this.#source()?.all() ?? [];
  }

  lookup(names: Iterable<string>): Map<string, KernelSymbol> {
    const source = this.#source();
    return source ? lookupSymbols(source, names) : new Map();
  }

  config(): Record<string, string> | null {
    if (this.#config === undefined) this.#config = this.#findConfig();
    return this.#config;
  }

  sha256(signal?: AbortSignal): Promise<string> {
    return hashFile(this.#parts.given, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.stack.disposeAsync();
  }

  #findBanner(): string | null {
    const table = this.#table();
    if (table) {
      const symbol = lookupSymbols(table, ['linux_banner']).get('linux_banner');
      const home = symbol?.section ? this.section(symbol.section) : null;
      const banner = symbol && home && bannerAt(home, Number(symbol.address - home.address));
      if (banner) return banner;
    }
    const rodata = this.section('.rodata');
    return (rodata && findBanner(rodata)) ?? this.#parts.running?.banner ?? null;
  }

  #findConfig(): Record<string, string> | null {
    const { options, path } = this.#parts;
    if (options.config !== undefined) return readConfigFile(options.config);
    const own = this.#parts.running?.config;
    if (own) return readConfigFile(own);
    const rodata = this.section('.rodata');
    const table = this.#table();
    // A kernel with symbols shows by one of them whether it contains its configuration.
    const mayEmbed = !table || lookupSymbols(table, ['kernel_config_data']).size > 0;
    const embedded = rodata && mayEmbed ? findEmbeddedConfig(rodata) : null;
    if (embedded) return embedded;
    const beside = configBeside(path, this.release());
    return beside === null ? null : readConfigFile(beside);
  }

  #table(): SymbolTable | null {
    if (this.#symbolTable === undefined) {
      const found = this.#parts.sections.symbolTable();
      this.#symbolTable = found && new SymbolTable(found.image, found.symtab, this.path);
    }
    return this.#symbolTable;
  }

  #source(): SymbolSource | null {
    if (this.#symbols === undefined) this.#symbols = this.#findSymbols();
    return this.#symbols;
  }

  #findSymbols(): SymbolSource | null {
    const { options, path } = this.#parts;
    const textStart = this.section('.text')?.address ?? configuredTextStart(this.config());
    if (options.symbols !== undefined) {
      const given = SymbolText.read(options.symbols, textStart);
      const why = !given
        ? 'it only says in which package the real addresses are'
        : this.#contradicts(given)
          ? `it belongs to another build than ${path}`
          : null;
      if (given && why === null) return given;
      throw new ExtractError(
        'no-debug-information',
        `${options.symbols} gives no kernel addresses: ${why}; take the System.map of the build or the guest's /proc/kallsyms`,
        { path: options.symbols, why },
      );
    }
    const table = this.#table() ?? this.#kallsyms();
    if (table) return table;
    const release = this.release();
    if (release === null || release.includes('/')) return null;
    const beside = join(dirname(path), `System.map-${release}`);
    const map = existsSync(beside) ? SymbolText.read(beside, textStart) : null;
    return map && !this.#contradicts(map) ? map : null;
  }

  /** The symbols that a kernel carries for its own use, present even if it is packed or stripped. */
  #kallsyms(): SymbolSource | null {
    const rodata = this.section('.rodata');
    if (!rodata || rodata.size === 0 || rodata.size > MAX_RODATA) return null;
    const { address } = rodata;
    const bytes = asBuffer(rodata.read());
    return findKallsyms(bytes, address, (at, length) => {
      const offset = Number(at - address);
      return offset >= 0 && offset + length <= bytes.length ? bytes.subarray(offset, offset + length) : null;
    });
  }

  /** Whether a symbol text places `linux_banner` where this image has no banner. */
  #contradicts(symbols: SymbolSource): boolean {
    const rodata = this.section('.rodata');
    const banner = lookupSymbols(symbols, ['linux_banner']).get('linux_banner');
    if (!rodata || rodata.size === 0 || !banner) return false;
    return bannerAt(rodata, Number(banner.address - rodata.address)) === null;
  }
}

/** `__START_KERNEL` of arch/x86/include/asm/page_types.h and boot.h, if the configuration determines it. */
function configuredTextStart(config: Readonly<Record<string, string>> | null): bigint | null {
  const [start, align] = ['CONFIG_PHYSICAL_START', 'CONFIG_PHYSICAL_ALIGN'].map((option) => config?.[option]);
  if (!isHex(start) || !isHex(align) || BigInt(align) === 0n) return null;
  const step = BigInt(align);
  return KERNEL_IMAGE + ((BigInt(start) + step - 1n) / step) * step;
}

function isHex(text: string | undefined): text is string {
  return text !== undefined && /^0x[0-9a-f]{1,8}$/i.test(text);
}
