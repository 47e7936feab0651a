import { KnownError } from './known-error.ts';

/** Stable error codes for an extraction's input or output. */
export type ExtractErrorCode =
  | 'file-not-found'
  | 'file-unreadable'
  | 'not-a-kernel'
  | 'not-elf64'
  | 'wrong-architecture'
  | 'truncated'
  | 'corrupt-elf'
  | 'corrupt-dwarf'
  | 'corrupt-btf'
  | 'unsupported-btf'
  | 'btf-base'
  | 'corrupt-archive'
  | 'unsupported-compression'
  | 'unsupported-relocation'
  | 'no-debug-information'
  | 'no-banner'
  | 'struct-not-found'
  | 'struct-conflict'
  | 'engine-unavailable'
  | 'engine-failed'
  | 'cross-check-mismatch'
  | 'check-mismatch'
  | 'config-mismatch'
  | 'layout-invalid'
  | 'no-space'
  | 'output-failed'
  | 'interrupted';

/** An error of the extractor or the code generator. */
export class ExtractError extends KnownError<ExtractErrorCode> {
  override readonly name = 'ExtractError';
}
