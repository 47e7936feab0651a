import { DomschedError } from '../error.ts';

/** The error for guest data that contradicts itself, or differs from what an edit was to achieve. */
export function inconsistent(message: string, details: Record<string, unknown> = {}): DomschedError {
  return new DomschedError('guest-inconsistent', message, details);
}
