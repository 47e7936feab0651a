import type { Tick } from './tick.ts';

/** Something that an operator has to see to, while the daemon goes on as far as it can. */
export interface Problem {
  /** Code of a {@link DomschedError}. */
  readonly code: string;
  /** Name of the guest; absent if it is the host's. */
  readonly domain?: string;
  /** The reason, and the next step. */
  readonly message: string;
  /** ISO 8601; absent if it was not noted. */
  readonly since?: string;
}

/** Codes of errors after which a guest may be half written: no policy edits it before it is reset. */
export const HALF_WRITTEN: ReadonlySet<string> = new Set(['edit-torn', 'edit-failed']);

/** The problems that a tick tells of: guests that may be half written, and a journal that cannot be written. */
export function problemsOf({ domains, journal }: Pick<Tick, 'domains' | 'journal'>): Problem[] {
  const torn = domains.flatMap(({ name, error }) =>
    error !== undefined && HALF_WRITTEN.has(error.code)
      ? [{ code: error.code, domain: name, message: error.message }]
      : [],
  );
  if (journal === undefined) return torn;
  const { code, message, since } = journal;
  return [...torn, { code, message, ...(since !== undefined && { since }) }];
}
