import type { z } from 'zod';
import type { FAILURE } from '../broker/protocol.ts';
import { DomschedError, type DomschedErrorCode } from '../error.ts';

/** An error that the broker has told. */
export function errorOf({ code, message, details }: z.output<typeof FAILURE>): DomschedError {
  return new DomschedError(code as DomschedErrorCode, message, details);
}
