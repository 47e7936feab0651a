/** Stable codes of what can go wrong with the kernels that the project takes from elsewhere. */
export type KernelsErrorCode =
  | 'package-not-found'
  | 'package-broken'
  | 'download-failed'
  | 'no-space'
  | 'module-not-found'
  | 'kernel-absent'
  | 'interrupted';

/** A kernel could not be provided. `details` holds the failing fact; the message says what to do next. */
export class KernelsError extends Error {
  override readonly name = 'KernelsError';
  readonly code: KernelsErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: KernelsErrorCode,
    message: string,
    details: Record<string, unknown> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.details = details;
  }
}
