import type { EngineName, Enumeration, Structure } from './contract.ts';
import type { KernelFile } from './elf/kernel-file.ts';

/** What to look for, and how to report progress. */
export interface ExtractRequest {
  /**
   * Kernel's own spellings to try, or every structure of the kernel. A typedef of an anonymous structure counts if no
   * structure has that tag (`spinlock_t` of old kernels).
   */
  structs: readonly string[] | 'all';
  /** Enumerations wanted by tag, besides those that the structures' members use. */
  enums: readonly string[];
  /** Enumerators wanted by name, from enumerations without a tag. */
  constants?: readonly string[];
  /**
   * Canonical names that the result must contain; `structs` lists each in all its spellings. Others may be absent from
   * this kernel. If one is missing: `structNotFound` of names.ts.
   */
  required: readonly string[];
  /**
   * Structures to take from one source file, by name, if the kernel has several of that name. The end of a path is
   * enough (`sched/core.c`).
   */
  units?: Readonly<Record<string, string>>;
  /** Read all units of the kernel, not only the necessary ones, and compare their definitions. */
  thorough?: boolean;
  /** The kernel of a module, whose BTF is complete only with the kernel's. */
  base?: KernelFile;
  progress?: (done: number, total: number, what: string) => void;
  signal?: AbortSignal;
}

/**
 * Facts that debug information of some format or age does not contain. Engines are not compared on facts that one of
 * them cannot know:
 * - `dimensions`: `[2][7]` is `[14]`;
 * - `array-bounds`: `[0]` is `[]`;
 * - `prototypes`: `()` is `(void)`;
 * - `atomics`: `_Atomic` is left out;
 * - `char-sign`: whether `char` is signed; such members have no `signed`;
 * - `enum-sign`: whether an enumeration is signed; such members have no `signed`, and an enumerator with the highest
 *   bit set is read as negative.
 */
export type Unknowable = 'dimensions' | 'array-bounds' | 'prototypes' | 'atomics' | 'char-sign' | 'enum-sign';

/** An engine's result. Keys of `structs` are canonical names; embedded structures are included. */
export interface EngineResult {
  structs: Record<string, Structure>;
  enums: Record<string, Enumeration>;
  /** The enumerators of `Request.constants` that exist. */
  constants?: Record<string, number>;
  dwarfVersion: number | null;
  /** Per-CPU variables in the debug information: byte offset within the per-CPU section, by name. */
  percpu?: Record<string, number>;
  /** What this file's debug information does not contain. */
  unknowable?: readonly Unknowable[];
}

/** One way to read structures from a kernel file. Engines are independent of each other. */
export interface Engine {
  readonly name: EngineName;
  /** Null if this engine can answer the request from the file, otherwise the reason, as a clause for a message. */
  unavailable(file: KernelFile, request: ExtractRequest): Promise<string | null>;
  /** @throws ExtractError */
  extract(file: KernelFile, request: ExtractRequest): Promise<EngineResult>;
}
