import { DomschedError } from '../error.ts';

/** What a guest says contradicts itself, or is not what an edit was to achieve. */
export function inconsistent(message: string, details: Record<string, unknown> = {}): DomschedError {
  return new DomschedError('guest-inconsistent', message, details);
}
