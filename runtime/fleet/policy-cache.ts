import { createHash } from 'node:crypto';
import { readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { z } from 'zod';
import { cacheDirectory } from '../cache-directory.ts';
import { makePrivate, writePrivate } from '../runtime-directory.ts';
import type { FleetConfig } from './config.ts';
import { MOST_POLICY, type StoredPolicy } from './stored-policy.ts';

const FORMAT = 'domsched-fleet-policy/1';
const CACHED = z.object({
  format: z.literal(FORMAT),
  confirmedAt: z.iso.datetime(),
  revision: z.number().int(),
  at: z.string(),
  by: z.string(),
  comment: z.string(),
  policy: z.string().max(MOST_POLICY),
});

/** The last policy that was in force here, and when the store last said so, by this host's clock (ISO 8601). */
export interface CachedPolicy extends StoredPolicy {
  readonly confirmedAt: string;
}

/** Keeps the last policy that this host could use, for a start without the store. */
export class PolicyCache {
  readonly #file: string;

  /** @param config policies of other fleets are not mixed with this one's */
  constructor(config: FleetConfig, directory = cacheDirectory()) {
    const digest = createHash('sha256').update(JSON.stringify(config.servers)).digest('hex').slice(0, 16);
    this.#file = path.join(directory, 'fleet', `policy-${digest}.json`);
  }

  read(): CachedPolicy | undefined {
    try {
      // Only what nobody else can have written.
      const { uid, mode } = statSync(this.#file);
      if (uid !== process.geteuid?.() || (mode & 0o022) !== 0) return undefined;
      const { format: _, ...cached } = CACHED.parse(JSON.parse(readFileSync(this.#file, 'utf8')));
      return cached;
    } catch {
      return undefined;
    }
  }

  /** @throws what the file system throws; the old one is there then */
  write(policy: StoredPolicy, confirmedAt: Date): void {
    const draft = `${this.#file}.${process.pid}`;
    const cached: CachedPolicy = { ...policy, confirmedAt: confirmedAt.toISOString() };
    makePrivate(path.dirname(this.#file));
    try {
      writePrivate(draft, JSON.stringify({ format: FORMAT, ...cached }));
      renameSync(draft, this.#file);
    } finally {
      rmSync(draft, { force: true });
    }
  }
}
