import test from 'ava';
import fc from 'fast-check';
import { DomschedError } from '../../../runtime/error.ts';
import type { Field } from '../../../runtime/layout/field.ts';
import { generated } from './sample.ts';

/** The structure after a planned write has been made. */
function written(field: Field, before: Uint8Array, value: number | bigint | boolean): Uint8Array {
  const { offset, size } = field.word;
  const old = before.slice(offset, offset + size);
  const after = before.slice();
  after.set(field.encode(value, old), offset);
  return after;
}

test('what is encoded reads back, and no other bit changes', async (t) => {
  const layout = await generated(t);
  const ranges: [string, bigint, bigint][] = [
    ['nr_running', 0n, 2n ** 32n - 1n],
    ['class', -(2n ** 15n), 2n ** 15n - 1n],
    ['curr', 0n, 2n ** 64n - 1n],
    ['whole', -(2n ** 63n), 2n ** 63n - 1n],
    ['load[1]', -(2n ** 31n), 2n ** 31n - 1n],
    ['flag', 0n, 1n],
    ['level', -64n, 63n],
  ];
  for (const [path, min, max] of ranges) {
    const field = layout.field('rq', path);
    const width = BigInt(field.bitSize ?? field.size * 8);
    fc.assert(
      fc.property(
        fc.bigInt({ min, max }),
        fc.uint8Array({ minLength: 128, maxLength: 128 }),
        (value, before) => {
          const after = written(field, before, value);
          const view = new DataView(after.buffer, after.byteOffset, after.byteLength);
          t.is(field.bigint(view), value);
          // Bits of the whole structure that differ lie inside the field's own.
          const first = BigInt(path === 'level' ? field.offset * 8 + 1 : field.offset * 8);
          const changed = bitsOf(before) ^ bitsOf(after);
          t.is(changed & ~(((1n << width) - 1n) << first), 0n);
        },
      ),
      { numRuns: 40 },
    );
    for (const value of [min - 1n, max + 1n]) {
      const error = t.throws(() => written(field, new Uint8Array(128), value), { instanceOf: DomschedError });
      t.is(error?.code, 'edit-failed');
    }
  }
});

test('only values of the member’s kind are encoded', async (t) => {
  const layout = await generated(t);
  const field = (path: string) => layout.field('rq', path);
  t.deepEqual(field('__proto__').encode(true), Uint8Array.of(1));
  t.deepEqual(field('nr_running').encode(0x01020304), Uint8Array.of(4, 3, 2, 1));
  for (const value of [1.5, Number.NaN, 2 ** 60, Number.POSITIVE_INFINITY, true]) {
    t.throws(() => field('whole').encode(value), { instanceOf: DomschedError });
  }
  t.throws(() => field('__proto__').encode(1), { instanceOf: DomschedError });
  t.throws(() => field('cfs').encode(0), { instanceOf: DomschedError });
  t.throws(() => field('load').encode(0), { instanceOf: DomschedError });
  t.throws(() => field('flag').encode(1), { instanceOf: DomschedError }, 'without the bits around it');
  t.throws(() => field('flag').encode(1, new Uint8Array(4)), { instanceOf: DomschedError });
});

function bitsOf(bytes: Uint8Array): bigint {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
