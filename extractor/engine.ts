import type { EngineName, Enumeration, Structure } from './contract.ts';
import type { KernelFile } from './elf/kernel-file.ts';

/** What to look for, and a place to say how far one is. */
export interface Request {
  /** Kernel's own spellings to try, or every structure of the kernel. */
  structs: readonly string[] | 'all';
  /** Enumerations wanted by tag, beside those that the structures' members use. */
  enums: readonly string[];
  /** Structures (kernel spelling) that must exist; others in `structs` may be absent from this kernel. */
  required: readonly string[];
  progress?: (done: number, total: number, what: string) => void;
  signal?: AbortSignal;
}

/** What an engine found. Keys of `structs` are canonical names; embedded structures are included. */
export interface EngineResult {
  structs: Record<string, Structure>;
  enums: Record<string, Enumeration>;
  dwarfVersion: number | null;
}

/** One way to read structures out of a kernel file. Adding one touches no other. */
export interface Engine {
  readonly name: EngineName;
  /** Null when this engine can read the file, else the reason why not, as a clause for a message. */
  unavailable(file: KernelFile): Promise<string | null>;
  /** @throws ExtractError */
  extract(file: KernelFile, request: Request): Promise<EngineResult>;
}
