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
  /** Bytes; 0 where the source does not say (assembler, System.map). */
  size: bigint;
  /** STB_LOCAL symbols may repeat. */
  local: boolean;
  /** Name of the section that defines it; null for absolute symbols and where the source does not say. */
  section: string | null;
}

/** Files that debug information refers to. They are closed with the kernel file. */
export interface Companions {
  /**
   * What `dwz -m` moved out of this file and others.
   * @returns null where the file refers to none
   * @throws ExtractError `no-debug-information` when it is missing
   */
  alternate(): Companion | null;
  /**
   * A `.dwo` file, as a unit names it.
   * @throws ExtractError `no-debug-information` when it is missing
   */
  split(name: string, directory: string): Companion;
}

export interface Companion {
  readonly path: string;
  section(name: string): SectionData | null;
}

/**
 * An opened kernel image after its wrappings are off: compression of the whole file, a bzImage's payload, a
 * separate debug file. Close it on every path: it holds file descriptors.
 */
export interface KernelFile extends AsyncDisposable {
  /** The path the user gave. */
  readonly path: string;
  /**
   * A path to plain ELF on disk for tools that want one (gdb, pahole): of the file that holds the debug
   * information. Good while this process lives and the file is open. Null for raw BTF.
   */
  readonly elfPath: string | null;
  readonly buildId: string | null;
  /** Sections of the image and of its separate debug file, by name; the debug file's win where both have bytes. */
  section(name: string): SectionData | null;
  readonly sectionNames: readonly string[];
  /** The other files that its debug information is spread over. Absent where there can be none. */
  readonly companions?: Companions | undefined;
  /** `linux_banner` without newline, null where the file has no such string. */
  banner(): string | null;
  /** `uname -r`, from the banner or the boot header; null where the file does not say. */
  release(): string | null;
  /** All of `.symtab`, or of the System.map / kallsyms given beside the file. Empty where there is none. */
  symbols(): Iterable<KernelSymbol>;
  /**
   * The symbols among `names`, by name: much cheaper than all of them. Of several with one name a global one
   * wins; a name that only local symbols at different addresses share is left out, as none can be preferred.
   */
  lookup(names: Iterable<string>): Map<string, KernelSymbol>;
  /** IKCONFIG or the config given beside it; null where unknown. */
  config(): Record<string, string> | null;
  /**
   * SHA-256 of the file as given, in hex: what sha256sum prints. It reads the whole file, half a second for a debug
   * vmlinux of today, so ask for it only where nothing else says which file it is.
   */
  sha256(signal?: AbortSignal): Promise<string>;
}
