import type { EngineName, Enumeration, Structure } from './contract.ts';
import type { KernelFile } from './elf/kernel-file.ts';

/** What to look for, and a place to say how far one is. */
export interface ExtractRequest {
  /**
   * Kernel's own spellings to try, or every structure of the kernel. A typedef of an anonymous structure counts
   * where no structure has that tag (`spinlock_t` of old kernels).
   */
  structs: readonly string[] | 'all';
  /** Enumerations wanted by tag, beside those that the structures' members use. */
  enums: readonly string[];
  /** Enumerators wanted by their own name, of enumerations without a tag. */
  constants?: readonly string[];
  /**
   * Canonical names that must be among the result, each of which `structs` asks for in all its spellings; the
   * others may be absent from this kernel. Missing ones: `structNotFound` of names.ts.
   */
  required: readonly string[];
  /**
   * Structures to take from one source file, by name: where a file has several of that name. A path is enough from its
   * end on (`sched/core.c`).
   */
  units?: Readonly<Record<string, string>>;
  /** Look into all units of the kernel, not only into those that had to be read, and compare their definitions. */
  thorough?: boolean;
  /** The kernel of a module, whose BTF is only complete with the kernel's. */
  base?: KernelFile;
  progress?: (done: number, total: number, what: string) => void;
  signal?: AbortSignal;
}

/**
 * Facts that debug information of some format or age does not hold. Two engines are not held against each other on
 * what one of them cannot know:
 * - `dimensions`: `[2][7]` is `[14]`;
 * - `array-bounds`: `[0]` is `[]`;
 * - `prototypes`: `()` is `(void)`;
 * - `atomics`: `_Atomic` is left out;
 * - `char-sign`: whether `char` is signed; such members have no `signed`;
 * - `enum-sign`: whether an enumeration is signed; such members have no `signed`, and an enumerator of the highest
 *   bit is read as negative.
 */
export type Unknowable = 'dimensions' | 'array-bounds' | 'prototypes' | 'atomics' | 'char-sign' | 'enum-sign';

/** What an engine found. Keys of `structs` are canonical names; embedded structures are included. */
export interface EngineResult {
  structs: Record<string, Structure>;
  enums: Record<string, Enumeration>;
  /** The enumerators of `Request.constants` that exist. */
  constants?: Record<string, number>;
  dwarfVersion: number | null;
  /** Per-CPU variables that the debug information lists: byte offset within the per-CPU section, by name. */
  percpu?: Record<string, number>;
  /** What this file's debug information does not say. */
  unknowable?: readonly Unknowable[];
}

/** One way to read structures out of a kernel file. Adding one touches no other. */
export interface Engine {
  readonly name: EngineName;
  /** Null when this engine can answer the request from the file, else the reason why not, as a clause for a message. */
  unavailable(file: KernelFile, request: ExtractRequest): Promise<string | null>;
  /** @throws ExtractError */
  extract(file: KernelFile, request: ExtractRequest): Promise<EngineResult>;
}
