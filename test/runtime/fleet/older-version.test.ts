/**
 * A daemon of an older version beside one of this one: what the version before hosts told their policy's revision took and
 * said, in its own words. Its schema is written down here as it was, and is not to follow ours.
 */
import test from 'ava';
import { z } from 'zod';
import { decode, encode } from '../../../runtime/fleet/message.ts';

const OLD_WHO = z.object({ domain: z.string().max(64), comm: z.string().max(64), pid: z.number().int() });
const OLD_CLASS = z.object({
  matched: z.array(z.string().regex(/^[\w-]{1,16}$/)).max(512),
  first: z.boolean(),
  share: z.number().min(0).max(8192),
  waits: z.boolean(),
  who: OLD_WHO,
});
/** Keys that it does not know it leaves out; any other version it does not take. */
const OLD_MESSAGE = z.object({
  v: z.literal(1),
  run: z.string().regex(/^[\w-]{1,32}$/),
  seq: z.number().int().min(1),
  lease: z.number().min(100).max(60_000),
  rests: z.boolean(),
  classes: z.array(OLD_CLASS).max(64),
});

const ONE = {
  matched: ['abcdefghijkl'],
  first: false,
  share: 0.1,
  waits: true,
  who: { domain: 'web', comm: 'server', pid: 10 },
};
const OLD = { v: 1, run: 'r', seq: 7, rests: false, classes: [ONE] } as const;

test('an older daemon takes what this one says, and the revision that it does not know is left out', (t) => {
  const text = encode({ run: 'r', seq: 7, leaseMs: 5_000, rests: false, revision: 3, classes: [ONE] });
  t.is((JSON.parse(text) as { revision: number }).revision, 3);
  t.deepEqual(OLD_MESSAGE.parse(JSON.parse(text)), { ...OLD, lease: 5_000, classes: [ONE] });
  const rests = encode({ run: 'r', seq: 8, leaseMs: 5_000, rests: true, revision: undefined, classes: [] });
  t.like(OLD_MESSAGE.parse(JSON.parse(rests)), { rests: true, classes: [] });
});

test('this daemon takes what an older one says: nothing is known of its revision', (t) => {
  const said = Buffer.from(JSON.stringify({ ...OLD, lease: 5_000 }));
  t.deepEqual(decode(said), { run: 'r', seq: 7, leaseMs: 5_000, rests: false, classes: [ONE] });
  // One that is not as this version says is refused, and does not stand for another.
  const wrong = Buffer.from(JSON.stringify({ ...OLD, lease: 5_000, revision: -1 }));
  t.is(decode(wrong), 'not readable');
  const later = Buffer.from(JSON.stringify({ ...OLD, v: 2, lease: 5_000, classes: 'other words' }));
  t.is(decode(later), 'another version');
});
