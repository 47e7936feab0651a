import test from 'ava';
import { lockHeld, planLock } from '../../../runtime/guest/locks.ts';
import { planQueue } from '../../../runtime/guest/queue-plan.ts';
import { Shape } from '../../../runtime/guest/shape.ts';
import { planSignal } from '../../../runtime/guest/signal-plan.ts';
import { planTask } from '../../../runtime/guest/task-plan.ts';
import { planThreadInfo } from '../../../runtime/guest/thread-info-plan.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';

const known = await knownKernels();

test('there are layouts to plan by', (t) => {
  t.true(known.length >= 7);
});

for (const { folder, schedulers, load } of known) {
  test(`${folder}: what is read is where the layout has it`, async (t) => {
    const layout = await load();
    const task = planTask(layout);
    const queue = planQueue(layout);
    const signal = planSignal(layout);
    const o1 = schedulers.includes('o1');
    t.is(queue.o1 !== undefined, o1);
    t.is(queue.fair !== undefined, !o1);
    t.is(
      queue.fair?.entity.deadline !== undefined && queue.fair.entity.deadline >= 0,
      schedulers.includes('eevdf'),
    );
    t.is(queue.realtime !== undefined, schedulers.includes('rt'));
    t.is(task.timeUnit, o1 ? 'ticks' : 'ns');
    t.is(task.stateBits.zombie, o1 ? 16 : 32);
    t.is(signal.threadHeadOffset < 0, o1);
    t.is(planThreadInfo(layout).cpu >= 0 || task.cpu >= 0, true);
    t.is(queue.lock.kind, o1 ? (folder.endsWith('-up') ? 'none' : 'byte') : 'queued');
    // A record holds each member's bytes in one of its segments: the way back must give the layout's own offset.
    const back = (shape: Shape, at: number) => {
      const segment = shape.segments.find(({ at: start, length }) => at >= start && at < start + length)!;
      return segment.offset + at - segment.at;
    };
    const own = (path: string) => layout.field('task_struct', path).offset;
    t.is(back(task.shape, task.pid), own('pid'));
    t.is(back(task.shape, task.comm), own('comm'));
    t.is(back(task.shape, task.staticPrio), own('static_prio'));
    t.is(back(task.shape, task.tasksNext), own('tasks.next'));
    t.is(back(task.shape, task.signal), own('signal'));
    t.is(back(queue.shape, queue.curr), layout.field('rq', 'curr').offset);
    t.is(back(queue.key.shape, queue.key.nrRunning), layout.field('rq', 'nr_running').offset);
    t.true(task.shape.size < layout.requireStruct('task_struct').size);
  });
}

test('locks that processes are held under are found too, sleeping ones of PREEMPT_RT included', async (t) => {
  for (const { folder, load } of known) {
    const layout = await load();
    const { kind } = planLock(layout, 'sighand_struct', 'siglock');
    if (/-rt-/.test(folder)) t.is(kind, 'owner', folder);
    else if (folder.startsWith('6.')) t.is(kind, 'queued', folder);
    else t.true(['byte', 'none'].includes(kind), folder);
  }
});

test('held and free, by each kind of lock', (t) => {
  t.deepEqual(
    [1, 0, -1, -3].map((word) => lockHeld('byte', word)),
    [false, true, true, true],
  );
  t.deepEqual(
    [0, 1, 0x101].map((word) => lockHeld('queued', word)),
    [false, true, true],
  );
  t.deepEqual(
    [0, 0x0003_0003, 0x0004_0003].map((word) => lockHeld('ticket', word)),
    [false, false, true],
  );
  t.deepEqual(
    [
      [0, 0],
      [0x1000, -1],
      [0, -1],
    ].map(([low, high]) => lockHeld('owner', low!, high!)),
    [false, true, true],
  );
  t.false(lockHeld('none', 0));
});

test('shapes: neighbours share a read, what is far apart does not, and all is aligned', (t) => {
  const place = (offset: number, size: number) => ({ offset, size, type: '' });
  const shape = new Shape([place(5000, 16), place(20, 4), undefined, place(33, 3)]);
  t.deepEqual(shape.segments, [
    { offset: 16, length: 24, at: 0 },
    { offset: 5000, length: 16, at: 24 },
  ]);
  t.is(shape.size, 40);
  t.is(shape.at(place(33, 3)), 17);
  t.is(shape.at(undefined), -1);
  t.throws(() => shape.at(place(100, 4)), { instanceOf: RangeError });
  t.is(shape.piece(5008, 8), 32);
  t.is(shape.piece(5008, 16), -1);
});
