import { z } from 'zod';

/** Identifies a process of the host, so that a later one with its pid is not mistaken for it. */
export const HOST_PROCESS = z.strictObject({
  pid: z.number().int().positive(),
  started: z.number().int().nonnegative(),
});

const hex = z.string().regex(/^([0-9a-f]{2})*$/);
const frame = z.number().int().nonnegative();
const offset = z.number().int().min(0).max(4095);

/** One file of the log of edits under way. */
export const EDIT_RECORD = z.strictObject({
  domain: z.string(),
  title: z.string(),
  writer: HOST_PROCESS.optional(),
  writes: z.array(z.strictObject({ frame, offset, old: hex, new: hex })),
  still: z.array(z.strictObject({ frame, offset, bytes: hex })),
});
