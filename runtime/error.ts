/** Stable codes of what can go wrong between us and a guest. */
export type DomschedErrorCode =
  | 'usage'
  | 'no-host'
  | 'host-unreachable'
  | 'domain-not-found'
  | 'domain-gone'
  | 'domain-ambiguous'
  | 'capability-missing'
  | 'frame-unmapped'
  | 'translation-fault'
  | 'memory-fault'
  | 'protocol'
  | 'timeout'
  | 'layout-unknown'
  | 'layout-absent-member'
  | 'layout-disproved'
  | 'kernel-unidentified'
  | 'guest-inconsistent'
  | 'guest-booting'
  | 'walk-unbounded'
  | 'process-not-found'
  | 'process-ambiguous'
  | 'refused'
  | 'lock-held'
  | 'edit-conflict'
  | 'edit-failed'
  | 'edit-torn'
  | 'journal-failed'
  | 'dump-corrupt'
  | 'dump-unsupported'
  | 'config-invalid'
  | 'trace-invalid'
  | 'trace-failed';

/** Process exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused for safety. */
export type ExitCode = 1 | 2 | 3;

const EXIT_CODES: Partial<Record<DomschedErrorCode, ExitCode>> = {
  usage: 2,
  'layout-disproved': 3,
  refused: 3,
  'lock-held': 3,
};

/** What a process that failed with it exits with. */
export function exitCodeOf(code: DomschedErrorCode): ExitCode {
  return EXIT_CODES[code] ?? 1;
}

/**
 * A failure of the runtime. `code` is stable; `details` holds the failing fact (domain, address, member, …);
 * the message says what to do next.
 */
export class DomschedError extends Error {
  override readonly name: string = 'DomschedError';
  readonly code: DomschedErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: DomschedErrorCode,
    message: string,
    details: Record<string, unknown> = {},
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.code = code;
    this.details = details;
  }

  get exitCode(): ExitCode {
    return exitCodeOf(this.code);
  }
}
