import { KnownError } from '../extractor/known-error.ts';

/** Stable error codes for kernels that come from outside the project. */
export type KernelsErrorCode =
  | 'package-not-found'
  | 'package-broken'
  | 'download-failed'
  | 'no-space'
  | 'module-not-found'
  | 'kernel-absent'
  | 'interrupted';

/** A kernel could not be provided. */
export class KernelsError extends KnownError<KernelsErrorCode> {
  override readonly name = 'KernelsError';
}
