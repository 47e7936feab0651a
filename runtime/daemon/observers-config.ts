import { z } from 'zod';
import { isListen, LISTEN_TAKES } from '../web/local.ts';

/** Keys of the configuration that turn observers on: what is told of every tick. Without one it is off. */
export const OBSERVERS = {
  /** The page, the API, metrics and health over HTTP, to look only. */
  http: z
    .strictObject({
      /** A socket for root alone when left out. */
      listen: z.string().refine(isListen, LISTEN_TAKES).optional(),
      /** File with the token that a request over TCP has to bring. */
      tokenFile: z.string().startsWith('/', 'an absolute path').optional(),
      /** Processes that the metrics tell the CPU share of, the busiest. */
      processes: z.number().int().min(0).max(10_000).default(50),
    })
    .refine(
      ({ listen, tokenFile }) =>
        listen === undefined || listen.startsWith('unix:') || tokenFile !== undefined,
      'an address needs a tokenFile: whoever can open it, guests with user-mode networking too, could read all processes',
    )
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
