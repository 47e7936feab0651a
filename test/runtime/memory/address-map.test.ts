import test from 'ava';
import fc from 'fast-check';
import { pointerHash } from '../../../runtime/guest/pointer-hash.ts';
import { AddressMap, AddressSet, secretly } from '../../../runtime/memory/address-map.ts';

const BUCKETS = 2 ** 12;
const CHOSEN = 2_000;
/** Of so many keys at random, 1,585 buckets of 4,096 have one or more on average; fewer than this never. */
const SPREAD = 1_400;

/** How V8 hashes a bigint of 64 bits: `ComputeLongHash()`, src/utils/utils.h. It has no seed. */
function v8Hash(key: bigint): number {
  const word = (value: bigint) => BigInt.asUintN(64, value);
  let hash = word(~key + (key << 18n));
  hash ^= hash >> 31n;
  hash = word(hash * 21n);
  hash ^= hash >> 11n;
  hash = word(hash + (hash << 6n));
  hash ^= hash >> 22n;
  return Number(hash & 0x3fff_ffffn);
}

/** The product of an address with a fixed number, as a table of ours once took it. */
function productHash(pointer: number): number {
  const product = Math.imul((pointer / 8) | 0, 0x9e37_79b1);
  return (product ^ (product >>> 15)) >>> 0;
}

/** Addresses of one bucket, as a guest's kernel may choose them. */
function chosen(hash: (address: bigint) => number, start = 0xffff_8880_0000_0000n, step = 64n): bigint[] {
  const found: bigint[] = [];
  for (let address = start; found.length < CHOSEN / 20; address += step)
    if (hash(address) % BUCKETS === 0) found.push(address);
  return found;
}

const buckets = (keys: readonly bigint[], hash: (key: bigint) => number) =>
  new Set(keys.map((key) => hash(key) % BUCKETS)).size;

test('addresses that V8 would put into one bucket are spread', (t) => {
  const keys = chosen(v8Hash);
  t.is(buckets(keys, v8Hash), 1);
  t.true(buckets(keys.map(secretly), v8Hash) > 0.9 * keys.length);
});

test('pointers that were chosen to meet are spread, and those that differ in their upper bits alone', (t) => {
  const signed = (address: bigint) => Number(BigInt.asIntN(64, address));
  const keys = chosen((address) => productHash(signed(address)));
  const own = (address: bigint) => pointerHash(signed(address));
  t.is(
    buckets(keys, (address) => productHash(signed(address))),
    1,
  );
  t.true(buckets(keys, own) > 0.9 * keys.length);
  const far = Array.from({ length: CHOSEN }, (_, i) => 0xffff_8880_0000_0000n + (BigInt(i) << 35n));
  t.is(
    buckets(far, (address) => productHash(signed(address))),
    1,
  );
  t.true(buckets(far, own) > SPREAD);
});

test('every process has a secret of its own', async (t) => {
  const url = new URL('../../../runtime/memory/address-map.ts?other', import.meta.url);
  const other = (await import(url.href)) as { secretly: (address: bigint) => bigint };
  t.not(other.secretly(0xffff_8880_0000_0000n), secretly(0xffff_8880_0000_0000n));
});

test('they are a map and a set, in order of insertion', (t) => {
  const step = fc.tuple(
    fc.constantFrom('set', 'delete', 'clear'),
    fc.bigInt({ min: 0n, max: 40n }),
    fc.nat(),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const [map, set] = [new AddressMap<bigint, number>(), new AddressSet<bigint>()];
      const model = new Map<bigint, number>();
      for (const [what, low, value] of steps) {
        const key = low === 40n ? 0xffff_ffff_ffff_fff8n : low * 0x1000n;
        if (what === 'set') {
          map.set(key, value);
          set.add(key);
          model.set(key, value);
        } else if (what === 'delete') {
          for (const one of [map, set, model]) one.delete(key);
        } else for (const one of [map, set, model]) one.clear();
        t.is(map.get(key), model.get(key));
        t.is(set.has(key), model.has(key));
      }
      t.deepEqual(
        [...map].map(([key, value]) => [key, value] as const),
        [...model],
      );
      t.deepEqual([...set], [...model.keys()]);
      t.is(map.size, model.size);
    }),
  );
});
