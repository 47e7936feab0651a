import { z } from 'zod';
import { HOST_PROCESS } from '../edit/log-schema.ts';

/** One file of the journal. */
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
  boot: z.string().optional(),
  machine: HOST_PROCESS.optional(),
  policy: z.string().optional(),
  reason: z.string().optional(),
});

/** One file of the change journal: a nice value or share with its earlier value. */
export const CHANGE_RECORD = z.discriminatedUnion('kind', [
  HELD_RECORD.extend({ kind: z.literal('nice'), before: z.number().int(), set: z.number().int() }),
  z.strictObject({
    kind: z.literal('share'),
    connection: z.string(),
    domain: z.string(),
    name: z.string(),
    /** The hypervisor's process: a restarted domain has a share of its own. */
    hypervisorPid: z.number().int().nullable(),
    before: z.strictObject({ weight: z.number().optional(), cap: z.number().optional() }),
    set: z.strictObject({ weight: z.number().optional(), cap: z.number().optional() }),
  }),
]);
