/**
 * What all our errors are: a failure that we foresaw, as against a fault of ours. `code` is stable; `details` holds the
 * failing fact (file, offset, domain, member, …); the message says what to do next. The class stands beside the contract,
 * since the extractor and the runtime have nothing else in common.
 */
export abstract class KnownError<Code extends string = string> extends Error {
  readonly code: Code;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: Code, message: string, details: Record<string, unknown> = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  /** What a process that fails with it exits with. */
  get exitCode(): number {
    return 1;
  }
}
