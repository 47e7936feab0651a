/**
 * Base of all our errors: a foreseen failure, in contrast to a bug. `code` is stable; `details` holds the failing fact
 * (file, offset, domain, member, …); the message says what to do next. It is beside the contract because extractor and
 * runtime share nothing else.
 */
export abstract class KnownError<Code extends string = string> extends Error {
  readonly code: Code;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: Code, message: string, details: Record<string, unknown> = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  /** Exit code of a process that fails with this error. */
  get exitCode(): number {
    return 1;
  }
}
