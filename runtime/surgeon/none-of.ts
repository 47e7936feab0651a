import type { Technique } from '../technique/step.ts';

/** A clause for a message, where no way can be used: why a thread cannot be parked, and what else is missing. */
export function noneOf({ park, splice, state }: Readonly<Record<Technique, string | null>>): string {
  const others =
    splice === state
      ? `nor by splice or state: ${state}`
      : `nor by splice: ${splice}; nor by state: ${state}`;
  return `${park}; ${others}`;
}
