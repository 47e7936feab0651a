/** One section's bytes, read on demand; compressed ones (`.zdebug_*`, SHF_COMPRESSED) are decompressed. */
export interface SectionData {
  /** Name as written, but `.debug_x` for `.zdebug_x`. */
  readonly name: string;
  /** Bytes after decompression; 0 for SHT_NOBITS. */
  readonly size: number;
  /** Link-time virtual address. */
  readonly address: bigint;
  /**
   * Reads `length` bytes from `offset` into a new buffer (or into `target`).
   * @throws ExtractError `truncated` if the file ends early, `corrupt-elf` for a range outside the section
   */
  read(offset?: number, length?: number, target?: Uint8Array): Uint8Array;
}

export interface KernelSymbol {
  name: string;
  address: bigint;
  /** Bytes; 0 if the source does not tell (assembler, System.map). */
  size: bigint;
  /** STB_LOCAL: the name may repeat. */
  local: boolean;
  /** Name of the defining section; null for absolute symbols or if the source does not tell. */
  section: string | null;
}

/** Files that debug information refers to. They are closed together with the kernel file. */
export interface Companions {
  /**
   * The file into which `dwz -m` moved common parts.
   * @returns null if the file refers to none
   * @throws ExtractError `no-debug-information` if it is missing
   */
  alternate(): Companion | null;
  /**
   * A `.dwo` file, as named by a unit.
   * @throws ExtractError `no-debug-information` if it is missing
   */
  split(name: string, directory: string): Companion;
}

export interface Companion {
  readonly path: string;
  section(name: string): SectionData | null;
}

/**
 * An opened kernel image without its wrappings: compression of the whole file, a bzImage's payload, a separate debug
 * file. Close it on every path, since it holds file descriptors.
 */
export interface KernelFile extends AsyncDisposable {
  /** The path that the user gave. */
  readonly path: string;
  /**
   * Path of a plain ELF file with the debug information, for tools that need one (gdb, pahole). Valid while this
   * process lives and the file is open. Null for raw BTF.
   */
  readonly elfPath: string | null;
  readonly buildId: string | null;
  /** Finds a section of the image and its separate debug file by name; if both have bytes, the debug file's wins. */
  section(name: string): SectionData | null;
  readonly sectionNames: readonly string[];
  /** Other files with parts of its debug information. Absent if there can be none. */
  readonly companions?: Companions | undefined;
  /** `linux_banner` without newline, null if the file has no such string. */
  banner(): string | null;
  /** `uname -r`, from the banner or the boot header; null if the file does not tell. */
  release(): string | null;
  /** All of `.symtab`, or of the System.map or kallsyms given beside the file. Empty if there is none. */
  symbols(): Iterable<KernelSymbol>;
  /**
   * The symbols among `names`, by name; much cheaper than reading all. A global symbol takes precedence; a name that
   * only local symbols at different addresses have is left out, as none can be preferred.
   */
  lookup(names: Iterable<string>): Map<string, KernelSymbol>;
  /** IKCONFIG or the config given beside it; null if unknown. */
  config(): Record<string, string> | null;
  /**
   * SHA-256 of the file as given, in hex, like sha256sum. Reads the whole file, half a second for a debug vmlinux, so
   * use it only if nothing else identifies the file.
   */
  sha256(signal?: AbortSignal): Promise<string>;
}
