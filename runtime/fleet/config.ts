import { hostname } from 'node:os';
import { z } from 'zod';

/** Name of a host in its fleet: one token of a NATS subject, so that the server's permissions can name it. */
export const HOST_NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;

/** Longest lease, in seconds: what an unheard host may keep others waiting for is twice as long. */
export const LONGEST_LEASE = 60;

const file = z.string().startsWith('/', 'an absolute path');

/** `[fleet]`: without it nothing of the fleet is loaded. */
export const FLEET = z.strictObject({
  servers: z
    .array(z.string().regex(/^(nats|tls):\/\/[^\s/@]+$/, 'a server looks like nats://nats-1.example:4222'))
    .min(1),
  /** Unique in the fleet; defaults to the host's name up to its first dot. */
  name: z
    .string()
    .regex(HOST_NAME, 'a name of letters, digits, - and _, at most 64')
    .prefault(() => hostname().split('.')[0]!),
  /** File with `user:password`, a seed of an NKey, or what nsc writes. */
  credentials: file.optional(),
  /** Verifies the server by these certificates, or by those of the system. */
  tls: z
    .union([
      z.literal(true),
      z.strictObject({ ca: file.optional(), cert: file.optional(), key: file.optional() }),
    ])
    .optional(),
  /** Takes layouts of unknown kernels from the fleet's store, and gives those that it read: trusts whoever may write there. */
  layouts: z.boolean().default(false),
  /** How often this host repeats what it said, in seconds. Two leases without a word, and others go on without it. */
  lease: z.number().min(1).max(LONGEST_LEASE).default(5),
});

export type FleetConfig = z.output<typeof FLEET>;
