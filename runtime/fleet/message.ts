import { z } from 'zod';
import { type ActivityClass, MOST_CLASSES } from './activity.ts';
import { LONGEST_LEASE } from './config.ts';

/** Version of what hosts tell each other. A later one is not read: its words may mean something else. */
export const VERSION = 1;
/** Most bytes of a message; a longer one is not even read. */
export const MOST_BYTES = 16 * 1024;

/** What a host tells others of itself: all of its activity, so that a lost message costs nothing after the next one. */
export interface ActivityMessage {
  /** Differs between two starts of a daemon; `seq` counts from 1 in each. */
  readonly run: string;
  readonly seq: number;
  /** In ms; it says something again before this is over, for as long as there is activity. */
  readonly leaseMs: number;
  /** It ends, or has no activity: nobody is to wait for its next word. */
  readonly rests: boolean;
  /** Revision of the fleet's policy that is in force there; earlier versions do not say. */
  readonly revision?: number | undefined;
  readonly classes: readonly ActivityClass[];
}

/** Why a message was not taken: for metrics, and for people. */
export type Refusal =
  | 'too long'
  | 'not readable'
  | 'another version'
  | 'not from its host'
  | 'too many hosts';

const plain = z.string().regex(/^[\x20-\x7e]*$/);
// Unknown keys are left out: a later daemon may say more.
const MESSAGE = z.object({
  v: z.literal(VERSION),
  run: z.string().regex(/^[\w-]{1,32}$/),
  seq: z.number().int().min(1).max(Number.MAX_SAFE_INTEGER),
  lease: z
    .number()
    .min(100)
    .max(LONGEST_LEASE * 1000),
  rests: z.boolean(),
  revision: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  classes: z
    .array(
      z.object({
        matched: z.array(z.string().regex(/^[\w-]{1,16}$/)).max(512),
        first: z.boolean(),
        share: z.number().min(0).max(8192),
        waits: z.boolean(),
        who: z.object({
          domain: plain.max(64),
          comm: plain.max(64),
          pid: z
            .number()
            .int()
            .min(0)
            .max(2 ** 31),
        }),
      }),
    )
    .max(MOST_CLASSES),
});
const ANY_VERSION = z.object({ v: z.number() });

/** Writes a message; classes for which there is no room are left out, the last ones first. */
export function encode({ classes, leaseMs, ...rest }: ActivityMessage): string {
  for (let count = classes.length; ; count = Math.floor(count / 2)) {
    const text = JSON.stringify({ v: VERSION, ...rest, lease: leaseMs, classes: classes.slice(0, count) });
    if (count === 0 || Buffer.byteLength(text) <= MOST_BYTES) return text;
  }
}

/** Reads a message of another host, which may hold anything. Never throws. */
export function decode(bytes: Uint8Array): ActivityMessage | Refusal {
  if (bytes.length > MOST_BYTES) return 'too long';
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    return 'not readable';
  }
  const read = MESSAGE.safeParse(value);
  if (read.success) {
    const { v: _, lease, ...message } = read.data;
    return { ...message, leaseMs: lease };
  }
  const version = ANY_VERSION.safeParse(value);
  return version.success && version.data.v !== VERSION ? 'another version' : 'not readable';
}
