import test from 'ava';
import { Arena, type ObjectTable } from '../../../runtime/guest/arena.ts';
import { kernelPointer } from '../../../runtime/guest/pointer.ts';
import { Shape } from '../../../runtime/guest/shape.ts';
import type { Member } from '../../../runtime/layout/members.ts';
import type { ReadBatch } from '../../../runtime/memory/read-batch.ts';
import type { AddressSpace } from '../../../runtime/memory/types.ts';

const HIGH = 0xffff_8880;

/** Memory that has everything, and tells by whose addresses it was read. */
class Everywhere {
  readonly reads: number[][] = [];

  read(batch: ReadBatch): number {
    this.reads.push(Array.from({ length: batch.count }, (_, i) => batch.halves[2 * i]!));
    batch.mappedLengths.set(batch.lengths.subarray(0, batch.count));
    return 0;
  }
}

test('objects that change from look to look are read by ascending addresses, and keep their notes', (t) => {
  const member = { role: 'number', offset: 0, size: 8, signed: false, type: 'unsigned long' } as Member;
  const arena = new Arena();
  const table: ObjectTable<string> = arena.table('object', new Shape([member]), 100);
  const memory = new Everywhere();
  const space = memory as unknown as AddressSpace;
  const want = (low: number) => {
    const index = table.want(kernelPointer(low, HIGH));
    table.notes[index] ??= `note of ${low}`;
    return table.position(index, space);
  };
  arena.begin(space);
  for (const low of [0x5000, 0x1000, 0xf000_0000, 0x3000]) want(low);
  // One of them is gone.
  arena.begin(space);
  for (const low of [0x5000, 0xf000_0000, 0x3000]) want(low);
  arena.begin(space);
  memory.reads.length = 0;
  const places = [0x5000, 0xf000_0000, 0x3000].map(want);
  t.deepEqual(memory.reads, [[0x3000, 0x5000, 0xf000_0000]]);
  t.deepEqual(places, [8, 16, 0]);
  t.deepEqual(table.notes, ['note of 12288', 'note of 20480', 'note of 4026531840']);
  t.is(table.find(kernelPointer(0x1000, HIGH)), -1);
});
