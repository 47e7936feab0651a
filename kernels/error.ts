import { KnownError } from '../extractor/known-error.ts';

/** Stable codes of what can go wrong with the kernels that the project takes from elsewhere. */
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
