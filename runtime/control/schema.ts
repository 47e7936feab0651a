import { z } from 'zod';

// Options of requests, checked where they come from another process. Unknown keys are refused.

const timeout = z.number().min(0).max(600).default(5);
/** Name or id of a domain. */
const domain = z.string();
const TARGET = z.strictObject({
  domain,
  /** Pid, or a name that only one process has. */
  process: z.string(),
  /** How long to keep trying, in seconds. */
  timeout,
  /** Reports the planned writes, and writes nothing. */
  dryRun: z.boolean().default(false),
});

/** Options of each method. */
export const OPTIONS = {
  ps: z.strictObject({
    domain: domain.optional(),
    /** Pauses each domain while it is read, for an exact picture. */
    pause: z.boolean().default(false),
    /** One entry per thread. */
    threads: z.boolean().default(false),
  }),
  domains: z.strictObject({}),
  hold: TARGET.extend({
    technique: z.enum(['auto', 'splice', 'state', 'park']).default('auto'),
    /** Allows real-time processes, and those that serve storage, too. */
    force: z.boolean().default(false),
  }),
  release: TARGET,
  releaseAll: z.strictObject({ timeout }),
  renice: TARGET.extend({
    /** -20 to 19. */
    nice: z.number(),
    /** Sets the weight of the process's whole autogroup or control group against other groups. */
    group: z.boolean().default(false),
  }),
  share: z.strictObject({
    domain,
    weight: z.number().optional(),
    /** Percent of one CPU; 0 for no limit. */
    cap: z.number().optional(),
  }),
  accounts: z.strictObject({}),
  status: z.strictObject({}),
  fleet: z.strictObject({}),
  reload: z.strictObject({}),
} as const;

export type Method = keyof typeof OPTIONS;
/** Options as the caller gives them: those with a default may be left out. */
export type Options<M extends Method> = z.input<(typeof OPTIONS)[M]>;
