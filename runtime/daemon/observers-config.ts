import { z } from 'zod';
import { isListen } from '../web/local.ts';

/** Keys of the configuration that turn observers on: what is told of every tick. Without one it is off. */
export const OBSERVERS = {
  /** The page, the API, metrics and health over HTTP, to look only. */
  http: z
    .strictObject({
      listen: z
        .string()
        .refine(isListen, 'listen takes an address of this machine alone, like 127.0.0.1:9464'),
      /** Processes that the metrics tell the CPU share of, the busiest. */
      processes: z.number().int().min(0).max(10_000).default(50),
    })
    .optional(),
  /** A trace, for `domsched report`. */
  trace: z
    .strictObject({
      file: z.string().startsWith('/', 'an absolute path'),
      /** MiB on disk at most. */
      maxSize: z
        .number()
        .min(0.1)
        .max(2 ** 20)
        .default(64),
    })
    .optional(),
};

export type ObserverConfig = z.output<z.ZodObject<typeof OBSERVERS>>;
