import test from 'ava';
import { type LockKind, lockHeld, lockOf } from '../../../runtime/guest/locks.ts';
import { queueSlots } from '../../../runtime/guest/queue-slots.ts';
import { Shape } from '../../../runtime/guest/shape.ts';
import { signalSlots, taskSlots, threadInfoSlots } from '../../../runtime/guest/task-slots.ts';
import type { Member } from '../../../runtime/layout/members.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';

const known = await knownKernels();

test('there are layouts to read by', (t) => {
  t.true(known.length >= 7);
});

for (const { folder, schedulers, load } of known) {
  test(`${folder}: what is read is where the layout has it`, async (t) => {
    const layout = await load();
    const task = taskSlots(layout);
    const queue = queueSlots(layout);
    const signal = signalSlots(layout);
    const o1 = schedulers.includes('o1');
    t.is(queue.o1 !== undefined, o1);
    t.is(queue.fair !== undefined, !o1);
    t.is(queue.realtime !== undefined, schedulers.includes('rt'));
    t.is(task.timeUnit, o1 ? 'ticks' : 'ns');
    t.is(task.stateBits.zombie, o1 ? 16 : 32);
    t.is(signal.thread_head === undefined, o1);
    t.true((threadInfoSlots(layout).cpu ?? task.cpu) !== undefined);
    t.is(queue.lock.kind, o1 ? (folder.endsWith('-up') ? 'none' : 'byte') : 'queued');
    // A record holds each member's bytes in one of its segments: the way back must give the layout's own offset.
    const back = (shape: Shape, at: number) => {
      const segment = shape.segments.find(({ at: start, length }) => at >= start && at < start + length)!;
      return segment.offset + at - segment.at;
    };
    const own = (path: string) => layout.field('task_struct', path).offset;
    t.is(back(task.shape, task.pid.at), own('pid'));
    t.is(back(task.shape, task.comm.at), own('comm'));
    t.is(back(task.shape, task.static_prio.at), own('static_prio'));
    t.is(back(task.shape, task.tasks.next.pointerAt), own('tasks.next'));
    t.is(back(task.shape, task.signal.pointerAt), own('signal'));
    if (queue.fair !== undefined) {
      const { shape, key } = queue.fair.entity;
      const ordered = schedulers.includes('eevdf') ? 'deadline' : 'vruntime';
      t.is(back(shape, key.at), layout.field('sched_entity', ordered).offset);
    }
    t.is(back(queue.shape, queue.curr.pointerAt), layout.field('rq', 'curr').offset);
    t.is(back(queue.key.shape, queue.key.nr_running.at), layout.field('rq', 'nr_running').offset);
    t.true(task.shape.size < layout.requireStruct('task_struct').size);
  });
}

test('locks that processes are held under are found too, sleeping ones of PREEMPT_RT included', async (t) => {
  for (const { folder, load } of known) {
    const layout = await load();
    const { kind } = lockOf(layout, 'sighand_struct', 'siglock');
    if (/-rt-/.test(folder)) t.is(kind, 'owner', folder);
    else if (folder.startsWith('6.')) t.is(kind, 'queued', folder);
    else t.true(['byte', 'none'].includes(kind), folder);
  }
});

const lock = (kind: LockKind, size: number) => ({
  kind,
  word: { role: 'number' as const, offset: 0, size, type: '' },
});

test('held and free, by each kind of lock and the width of its word', (t) => {
  const held = (kind: LockKind, size: number, ...words: number[]) =>
    words.map((word) => lockHeld(lock(kind, size), word));
  t.deepEqual(held('byte', 4, 1, 0, -1, 2 ** 32 - 3), [false, true, true, true]);
  t.deepEqual(held('byte', 1, 1, 0, 0xff), [false, true, true]);
  t.deepEqual(held('queued', 4, 0, 1, 0x101), [false, true, true]);
  t.deepEqual(held('ticket', 4, 0, 0x0003_0003, 0x0004_0003), [false, false, true]);
  t.deepEqual(held('ticket', 2, 0, 0x0303, 0x0403), [false, false, true]);
  t.deepEqual(held('owner', 8, 0, 0xffff_8880_0000_1000, 2 ** 32), [false, true, true]);
  t.false(lockHeld({ kind: 'none', word: undefined }, 0));
});

test('shapes: neighbours share a read, what is far apart does not, and all is aligned', (t) => {
  const place = (offset: number, size: number): Member => ({ role: 'number', offset, size, type: 'int' });
  const shape = new Shape([place(5000, 16), place(20, 4), undefined, place(33, 3)]);
  t.deepEqual(shape.segments, [
    { offset: 16, length: 24, at: 0 },
    { offset: 5000, length: 16, at: 24 },
  ]);
  t.is(shape.size, 40);
  t.deepEqual(shape.block(place(33, 3)), { offset: 33, at: 17, size: 3 });
  t.throws(() => shape.number(place(100, 4)), { instanceOf: RangeError });
  for (const odd of [() => shape.number(place(33, 3)), () => shape.pointer(place(20, 4))])
    t.throws(odd, { code: 'layout-absent-member' });
  t.is(shape.piece(5008, 8), 32);
  t.is(shape.piece(5008, 16), -1);
});
