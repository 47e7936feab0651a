import { z } from 'zod';

/** A file of the journal. */
export const HELD_RECORD = z.strictObject({
  connection: z.string(),
  domain: z.string(),
  name: z.string(),
  buildId: z.string().nullable(),
  pid: z.number().int().nonnegative(),
  comm: z.string(),
  address: z.string().regex(/^0x[0-9a-f]{1,16}$/),
  startTimeNs: z.number().nonnegative(),
  since: z.string(),
});
