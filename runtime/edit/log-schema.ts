import { z } from 'zod';

/** A process of the host that a later one of its id is not taken for. */
export const HOST_PROCESS = z.strictObject({
  pid: z.number().int().positive(),
  started: z.number().int().nonnegative(),
});

const hex = z.string().regex(/^([0-9a-f]{2})*$/);
const frame = z.number().int().nonnegative();
const offset = z.number().int().min(0).max(4095);

/** A file of the edits that are under way. */
export const EDIT_RECORD = z.strictObject({
  domain: z.string(),
  title: z.string(),
  writer: HOST_PROCESS.optional(),
  writes: z.array(z.strictObject({ frame, offset, old: hex, new: hex })),
  still: z.array(z.strictObject({ frame, offset, bytes: hex })),
});
