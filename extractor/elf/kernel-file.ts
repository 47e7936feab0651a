/** One section's bytes, read on demand; compressed ones (`.zdebug_*`, SHF_COMPRESSED) read as if they were not. */
export interface SectionData {
  /** Name as written, except that `.zdebug_x` reads as `.debug_x`. */
  readonly name: string;
  /** Bytes after decompression; 0 for SHT_NOBITS. */
  readonly size: number;
  /** Link-time virtual address. */
  readonly address: bigint;
  /**
   * `length` bytes from `offset`, copied into a new buffer (or into `target`).
   * @throws ExtractError `truncated` when the file ends early, `corrupt-elf` for a range outside the section
   */
  read(offset?: number, length?: number, target?: Uint8Array): Uint8Array;
}

export interface KernelSymbol {
  name: string;
  address: bigint;
  size: bigint;
  /** STB_LOCAL symbols may repeat. */
  local: boolean;
}

/**
 * An opened kernel image after its wrappings are off: compression of the whole file, a bzImage's payload, a
 * separate debug file. Close it on every path: it holds a file descriptor and perhaps a temporary file.
 */
export interface KernelFile extends AsyncDisposable {
  /** The path the user gave. */
  readonly path: string;
  /** A path to plain ELF on disk for tools that want one (gdb, pahole); null for raw BTF. */
  readonly elfPath: string | null;
  readonly buildId: string | null;
  /** Sections of the image and of its separate debug file, by name; the debug file's win where both have bytes. */
  section(name: string): SectionData | null;
  readonly sectionNames: readonly string[];
  /** `linux_banner` without newline, null where the file has no such string. */
  banner(): string | null;
  /** All of `.symtab`, or of the System.map / kallsyms given beside the file. Empty where there is none. */
  symbols(): Iterable<KernelSymbol>;
  /** IKCONFIG or the config given beside it; null where unknown. */
  config(): Record<string, string> | null;
  /** SHA-256 of the file as given, in hex. Reads the whole file; start it early. */
  sha256(): Promise<string>;
}
