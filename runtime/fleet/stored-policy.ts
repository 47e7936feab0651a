import { z } from 'zod';

/** Most bytes of a policy. */
export const MOST_POLICY = 64 * 1024;

const text = (most: number) =>
  z
    .string()
    .max(most)
    // By characters that cannot control a terminal: it is told to people.
    .regex(/^[^\p{C}\p{Zl}\p{Zp}]*$/u);

const STORED = z.object({
  v: z.literal(1),
  policy: z.string().max(MOST_POLICY),
  /** As whoever set it says. */
  by: text(256),
  comment: text(1024),
});

/** A revision of the fleet's policy. */
export interface StoredPolicy {
  readonly revision: number;
  /** By the clock of the store, ISO 8601. */
  readonly at: string;
  readonly by: string;
  readonly comment: string;
  /** TOML. */
  readonly policy: string;
}

export function encodePolicy({ policy, by, comment }: Omit<StoredPolicy, 'revision' | 'at'>): string {
  return JSON.stringify(STORED.parse({ v: 1, policy, by, comment }));
}

/** @returns undefined for what is no policy of ours */
export function decodePolicy(bytes: Uint8Array, revision: number, at: Date): StoredPolicy | undefined {
  if (bytes.length > 2 * MOST_POLICY || Number.isNaN(at.getTime())) return undefined;
  try {
    const { v: _, ...stored } = STORED.parse(
      JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)),
    );
    return { ...stored, revision, at: at.toISOString() };
  } catch {
    return undefined;
  }
}
