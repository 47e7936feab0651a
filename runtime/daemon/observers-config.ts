import { z } from 'zod';
import { isListen, LISTEN_TAKES } from '../web/local.ts';

/** Keys of the configuration that turn observers on. An absent key leaves its observer off. */
export const OBSERVERS = {
  /** Read-only page, API, metrics and health over HTTP. */
  http: z
    .strictObject({
      /** Defaults to a socket that only root can open. */
      listen: z.string().refine(isListen, LISTEN_TAKES).optional(),
      /** File with the token that requests over TCP must carry. */
      tokenFile: z.string().startsWith('/', 'an absolute path').optional(),
      /** The metrics report the CPU share of at most this many processes, the busiest. */
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
      /** At most this many MiB on disk. */
      maxSize: z
        .number()
        .min(0.1)
        .max(2 ** 20)
        .default(64),
    })
    .optional(),
};

export type ObserverConfig = z.output<z.ZodObject<typeof OBSERVERS>>;
