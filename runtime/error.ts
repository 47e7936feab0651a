import { KnownError } from '../extractor/known-error.ts';

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
  | 'over-budget'
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
  | 'trace-failed'
  | 'output-failed';

/** Process exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused for safety. */
export type ExitCode = 1 | 2 | 3;

const EXIT_CODES: Partial<Record<DomschedErrorCode, ExitCode>> = {
  usage: 2,
  'layout-disproved': 3,
  refused: 3,
  'lock-held': 3,
  'over-budget': 3,
};

/** What a process that failed with it exits with. */
export function exitCodeOf(code: DomschedErrorCode): ExitCode {
  return EXIT_CODES[code] ?? 1;
}

/** A failure of the runtime. */
export class DomschedError extends KnownError<DomschedErrorCode> {
  override readonly name: string = 'DomschedError';

  override get exitCode(): ExitCode {
    return exitCodeOf(this.code);
  }
}
