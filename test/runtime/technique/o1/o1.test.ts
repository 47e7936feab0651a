import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { Draft } from '../../../../runtime/edit/draft.ts';
import { describeEdit, type Edit, type Invariant } from '../../../../runtime/edit/edit.ts';
import type { Word } from '../../../../runtime/edit/member.ts';
import { commit } from '../../../../runtime/edit/transaction.ts';
import { DomschedError, type DomschedErrorCode } from '../../../../runtime/error.ts';
import { O1Holder } from '../../../../runtime/surgeon/o1-holder.ts';
import { O1Surgery } from '../../../../runtime/technique/o1/o1.ts';
import type { Step } from '../../../../runtime/technique/step.ts';
import { checkFaults, checkOmissions, type Editable } from '../../edit/every-edit.ts';
import { o1Bits } from '../bits.ts';
import { members, O1ModelGuest, type O1ModelTask, weightedLayout } from './o1-guest.ts';

/** Plans something, and says of which task what is to come of it. */
type PlanEdit = (surgery: O1Surgery, draft: Draft) => Invariant[];

const dequeue =
  (task: O1ModelTask): PlanEdit =>
  (surgery, draft) =>
    surgery.planDequeue(draft, task.address);

const enqueue =
  (task: O1ModelTask): PlanEdit =>
  (surgery, draft) =>
    surgery.planEnqueue(draft, task.address);

const renice =
  (task: O1ModelTask, nice: number): PlanEdit =>
  (surgery, draft) =>
    surgery.planRenice(draft, task.address, nice);

function planned(guest: O1ModelGuest, plan: PlanEdit, title = 'test'): Edit {
  const surgery = new O1Surgery({ members, bits: o1Bits, queues: guest.queues, hz: null });
  const draft = new Draft(guest.space);
  surgery.checkLocks(draft);
  const outcome = plan(surgery, draft);
  return draft.edit(title, surgery.invariants(), outcome);
}

async function perform(guest: O1ModelGuest, plan: PlanEdit): Promise<void> {
  await using guard = await guest.domain.pause.acquire();
  await commit(guest.domain, guest.space, guard, planned(guest, plan));
}

/** The guest's memory equals the model's, read back by the test's own walk. */
function assertMatches(t: ExecutionContext, guest: O1ModelGuest): void {
  for (const { cpu, address } of guest.queues) {
    let linked = 0;
    for (const which of ['active', 'expired'] as const) {
      const array = guest.arrayAddress(cpu, which);
      let count = 0;
      for (let prio = 0; prio < 140; prio++) {
        const expected = guest.listOf(cpu, which, prio).map((task) => task.address);
        const head = array + BigInt(members.prio_array.queue + prio * 16);
        const found: bigint[] = [];
        for (let node = guest.load(head, members.list_head.next); node !== head && found.length < 1000; ) {
          found.push(node - BigInt(members.task_struct.run_list));
          node = guest.load(node, members.list_head.next);
        }
        t.deepEqual(found, expected as bigint[], `cpu ${cpu} ${which} ${prio}`);
        const word = guest.load(array + BigInt(8 * (prio >> 6)), members.prio_array.bitmap_word);
        t.is((word >> BigInt(prio & 63)) & 1n, expected.length > 0 ? 1n : 0n);
        count += expected.length;
      }
      t.is(guest.load(array, members.prio_array.nr_active), BigInt(count));
      linked += count;
    }
    t.is(guest.load(address, members.rq.nr_running), BigInt(linked));
  }
  for (const task of guest.tasks) {
    const array = task.which === null ? 0n : guest.arrayAddress(task.cpu, task.which);
    t.is(guest.load(task.address, members.task_struct.array), array as bigint);
    t.is(guest.load(task.address, members.task_struct.prio), BigInt(task.prio));
  }
}

function remove(guest: O1ModelGuest, task: O1ModelTask): void {
  const list = guest.listOf(task.cpu, task.which!, task.prio);
  list.splice(list.indexOf(task), 1);
  task.which = null;
}

const tasksArbitrary = fc.array(
  fc.record({
    cpu: fc.integer({ min: 0, max: 3 }),
    // Few priorities, so that lists get several tasks; the corners of the bitmap's words among them.
    prio: fc.constantFrom(100, 119, 120, 127, 128, 139),
    which: fc.constantFrom('active' as const, 'expired' as const),
  }),
  { minLength: 1, maxLength: 24 },
);

function build(tasks: { cpu: number; prio: number; which: 'active' | 'expired' }[]): O1ModelGuest {
  const guest = new O1ModelGuest(4);
  for (const { cpu, prio, which } of tasks) guest.addTask(cpu, prio, which);
  guest.write();
  return guest;
}

test('random holds, releases and renices leave the run queues as a plain model says', async (t) => {
  const step = fc.record({ pick: fc.nat(), nice: fc.integer({ min: -20, max: 19 }), reniced: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(tasksArbitrary, fc.array(step, { maxLength: 12 }), async (tasks, steps) => {
      const guest = build(tasks);
      for (const { pick, nice, reniced } of steps) {
        const task = guest.tasks[pick % guest.tasks.length]!;
        if (reniced) {
          await perform(guest, renice(task, nice));
          const which = task.which;
          if (which !== null) remove(guest, task);
          task.prio = 120 + nice;
          task.which = which;
          if (which !== null) guest.listOf(task.cpu, which, task.prio).push(task);
        } else if (task.which !== null) {
          await perform(guest, dequeue(task));
          remove(guest, task);
        } else {
          await perform(guest, enqueue(task));
          task.which = 'active';
          guest.listOf(task.cpu, 'active', task.prio).push(task);
        }
      }
      assertMatches(t, guest);
    }),
    { numRuns: 60 },
  );
});

test('dequeue and enqueue of the only task of a list give back the same counters and bitmap', async (t) => {
  const guest = build([{ cpu: 0, prio: 120, which: 'active' }]);
  const task = guest.tasks[0]!;
  await perform(guest, dequeue(task));
  t.is(guest.load(guest.queues[0]!.address, members.rq.nr_running), 0n);
  await perform(guest, enqueue(task));
  assertMatches(t, guest);
});

/** Each step of each technique, and how the task stands that it is for. */
const steps: [string, Prepare, (holder: O1Holder, draft: Draft, task: O1ModelTask) => Step | null][] = [
  ['splice of a ready task', () => {}, hold],
  ['state of a running task', ({ guest, task }) => guest.setCurrent(0, task), hold],
  [
    'a task that left by its state stays held',
    ({ guest, task, state }) => {
      remove(guest, task);
      state(ASKED_TO_LEAVE);
    },
    hold,
  ],
  ['release of a held task', ({ guest, task }) => remove(guest, task), release],
  [
    'release of a held task on a busy CPU',
    ({ guest, task, other }) => {
      remove(guest, task);
      guest.setCurrent(0, other);
    },
    release,
  ],
  [
    'release of a task that left by its state',
    ({ guest, task, state }) => {
      remove(guest, task);
      state(ASKED_TO_LEAVE);
    },
    release,
  ],
  [
    'release of a task that was asked to leave',
    ({ guest, task, state }) => {
      guest.setCurrent(0, task);
      state(ASKED_TO_LEAVE);
    },
    release,
  ],
  ['renice of a ready task', () => {}, reniced],
  ['renice of a held task', ({ guest, task }) => remove(guest, task), reniced],
];

interface PreparedTask {
  readonly guest: O1ModelGuest;
  readonly task: O1ModelTask;
  readonly other: O1ModelTask;
  readonly state: (value: bigint) => void;
}
type Prepare = (prepared: PreparedTask) => void;

/** include/linux/sched.h, 2.6.16. */
const TASK_STOPPED = 4n;
const TASK_TRACED = 8n;
const ASKED_TO_LEAVE = o1Bits.held;

function hold(holder: O1Holder, draft: Draft, { address }: O1ModelTask): Step | null {
  return holder.planHold(draft, address, ['splice', 'state']);
}

function release(holder: O1Holder, draft: Draft, { address }: O1ModelTask): Step | null {
  return holder.planRelease(draft, address);
}

function reniced(holder: O1Holder, draft: Draft, { address }: O1ModelTask): Step {
  return { technique: null, outcome: holder.planRenice(draft, address, -7) };
}

for (const [name, prepare, plan] of steps) {
  const make = async (): Promise<Editable> => {
    const guest = build([
      { cpu: 0, prio: 120, which: 'active' },
      { cpu: 0, prio: 125, which: 'active' },
      { cpu: 0, prio: 125, which: 'active' },
    ]);
    const [other, task] = [guest.tasks[0]!, guest.tasks[1]!];
    const state = (value: bigint) => guest.put(task.address, members.task_struct.state, value);
    prepare({ guest, task, other, state });
    guest.write();
    return {
      domain: guest.domain,
      space: guest.space,
      plan: () => {
        const holder = new O1Holder({ members, bits: o1Bits, queues: guest.queues, hz: null });
        const draft = new Draft(guest.space);
        holder.checkLocks(draft);
        const step = plan(holder, draft, task);
        return draft.edit(name, holder.invariants(), step!.outcome);
      },
    };
  };

  test(`${name}: a fault at every memory operation leaves the old image or the new one`, (t) =>
    checkFaults(t, name, make));

  test(`${name}: leaving out any one write is noticed, and the guest put back`, (t) =>
    checkOmissions(t, name, make));
}

test('a guest that can be neither written nor put back stays paused', async (t) => {
  const guest = build([
    { cpu: 0, prio: 120, which: 'active' },
    { cpu: 0, prio: 120, which: 'active' },
  ]);
  let writes = 0;
  guest.domain.recorder.onCall(({ kind }) => {
    if (kind !== 'write') return;
    writes += 1;
    if (writes > 1) throw new Error('no more writes');
  });
  const error = await t.throwsAsync(perform(guest, dequeue(guest.tasks[0]!)), { instanceOf: DomschedError });
  t.is((error as DomschedError).code, 'edit-failed');
  t.is((error as DomschedError).details.restored, false);
  t.is(guest.domain.recorder.count('resume'), 0);
  await guest.domain.close();
  t.is(guest.domain.recorder.count('resume'), 0, 'not even at the end');
});

test('refusals change nothing', async (t) => {
  const guest = build([
    { cpu: 0, prio: 120, which: 'active' },
    { cpu: 1, prio: 50, which: 'active' },
  ]);
  guest.setCurrent(0, guest.tasks[0]!);
  guest.write();
  const before = guest.domain.image.clone();
  const [running, realTime] = guest.tasks as [O1ModelTask, O1ModelTask];
  const refused: [PlanEdit, DomschedErrorCode][] = [
    [dequeue(running), 'refused'],
    [enqueue(realTime), 'refused'],
    [renice(realTime, 5), 'refused'],
    [renice(running, 20), 'usage'],
    [dequeue({ ...running, address: 0x123_4567n as never }), 'guest-inconsistent'],
  ];
  for (const [plan, code] of refused) {
    const error = await t.throwsAsync(perform(guest, plan), { instanceOf: DomschedError });
    t.is((error as DomschedError).code, code);
  }
  t.deepEqual(guest.domain.image.differences(before), []);
  t.is(guest.domain.recorder.count('write'), 0);
  t.is(guest.domain.pause.depth, 0);
});

test('a thread under a tracer is not held', async (t) => {
  const guest = build([{ cpu: 0, prio: 120, which: 'active' }]);
  guest.write();
  const [traced] = guest.tasks as [O1ModelTask];
  guest.put(traced.address, members.task_struct.ptrace, 1n);
  const holder = new O1Holder({ members, bits: o1Bits, queues: guest.queues, hz: null });
  t.throws(() => hold(holder, new Draft(guest.space), traced), { code: 'refused', message: /tracer/ });
  guest.put(traced.address, members.task_struct.ptrace, 0n);
  t.truthy(hold(holder, new Draft(guest.space), traced));
});

test('a thread that its user or a tracer stopped is not taken for held: it is neither held nor let go', (t) => {
  for (const stopped of [TASK_STOPPED, TASK_TRACED, TASK_STOPPED | ASKED_TO_LEAVE]) {
    const guest = build([{ cpu: 0, prio: 120, which: 'active' }]);
    const [task] = guest.tasks as [O1ModelTask];
    remove(guest, task);
    guest.write();
    guest.put(task.address, members.task_struct.state, stopped);
    const holder = new O1Holder({ members, bits: o1Bits, queues: guest.queues, hz: null });
    const draft = new Draft(guest.space);
    t.is(holder.standing(draft, task.address), 'sleeping');
    t.is(hold(holder, draft, task), null);
    t.is(release(holder, draft, task), null);
    t.deepEqual(draft.edit('none', [], []).writes, []);
    // On its way there: still linked and on its CPU.
    guest.listOf(0, 'active', 120).push(Object.assign(task, { which: 'active' }));
    guest.setCurrent(0, task);
    guest.write();
    guest.put(task.address, members.task_struct.state, stopped);
    t.is(release(holder, new Draft(guest.space), task), null);
  }
});

test('a thread that fork() has yet to put into a queue is not taken for held', (t) => {
  const guest = build([{ cpu: 0, prio: 120, which: 'active' }]);
  const [task] = guest.tasks as [O1ModelTask];
  remove(guest, task);
  guest.write();
  const holder = new O1Holder({ members, bits: o1Bits, queues: guest.queues, hz: null });
  t.is(holder.standing(new Draft(guest.space), task.address), 'held');
  // sched_fork(): INIT_LIST_HEAD(&p->run_list). Enqueued by us it would be linked twice.
  const node = task.address + BigInt(members.task_struct.run_list);
  for (const link of [members.list_head.next, members.list_head.prev]) guest.put(node, link, node);
  const draft = new Draft(guest.space);
  t.is(holder.standing(draft, task.address), 'changing');
  t.is(release(holder, draft, task), null);
  t.is(hold(holder, draft, task), null);
  t.deepEqual(draft.edit('none', [], []).writes, []);
});

/**
 * The kernel's own arithmetic of `set_load_weight()` with a tick rate, written from its macros: SCALE_PRIO,
 * static_prio_timeslice, LOAD_WEIGHT (kernel/sched.c, 2.6.18).
 */
function kernelWeight(hz: number, nice: number): number {
  const defaultSlice = Math.trunc((100 * hz) / 1000);
  const shortest = Math.max(Math.trunc((5 * hz) / 1000), 1);
  const scale = (slice: number) => Math.max(Math.trunc((slice * (140 - (120 + nice))) / 20), shortest);
  return Math.trunc((scale(nice < 0 ? defaultSlice * 4 : defaultSlice) * 128) / defaultSlice);
}

for (const hz of [100, 250, 1000]) {
  test(`renice at ${hz} ticks a second writes weight and normal_prio, and the queue's sum stays its tasks'`, async (t) => {
    const weighted = weightedLayout.task_struct;
    const value = (field: Word | undefined, task: O1ModelTask, to: number) =>
      guest.put(task.address, field!, BigInt(to));
    const guest = build([-20, -1, 0, 5, 19].map((nice) => ({ cpu: 0, prio: 120 + nice, which: 'active' })));
    const sleeper = guest.addTask(0, 120, 'active');
    remove(guest, sleeper);
    guest.write();
    let sum = 0;
    for (const task of guest.tasks) {
      const weight = kernelWeight(hz, task.prio - 120);
      value(weighted.load_weight, task, weight);
      value(weighted.normal_prio, task, task.prio);
      if (task.which !== null) sum += weight;
    }
    const queue = guest.queues[0]!.address;
    guest.put(queue, weightedLayout.rq.raw_weighted_load!, BigInt(sum));
    const surgery = new O1Surgery({ members: weightedLayout, bits: o1Bits, queues: guest.queues, hz });
    for (const task of guest.tasks) {
      for (const nice of [19, -20, -1, 0, 7]) {
        const draft = new Draft(guest.space);
        const outcome = surgery.planRenice(draft, task.address, nice);
        await using guard = await guest.domain.pause.acquire();
        await commit(guest.domain, guest.space, guard, draft.edit('renice', surgery.invariants(), outcome));
        if (task.which !== null) sum += kernelWeight(hz, nice) - kernelWeight(hz, task.prio - 120);
        task.prio = 120 + nice;
        t.is(guest.load(task.address, weighted.load_weight!), BigInt(kernelWeight(hz, nice)), `nice ${nice}`);
        for (const field of [weighted.prio, weighted.static_prio, weighted.normal_prio!])
          t.is(guest.load(task.address, field), BigInt(120 + nice));
        t.is(guest.load(queue, weightedLayout.rq.raw_weighted_load!), BigInt(sum));
      }
    }
  });
}

test('renice refuses a weight or a priority that this kernel would not have given', (t) => {
  const guest = build([{ cpu: 0, prio: 120, which: 'active' }]);
  const [task] = guest.tasks as [O1ModelTask];
  const { load_weight, normal_prio } = weightedLayout.task_struct;
  const plan = (hz: number | null) =>
    new O1Surgery({ members: weightedLayout, bits: o1Bits, queues: guest.queues, hz }).planRenice(
      new Draft(guest.space),
      task.address,
      5,
    );
  guest.put(task.address, normal_prio!, 120n);
  guest.put(task.address, load_weight!, 128n);
  t.notThrows(() => plan(250));
  t.throws(() => plan(null), { code: 'refused', message: /tick_nsec/ });
  guest.put(task.address, load_weight!, 1024n);
  t.throws(() => plan(250), { code: 'refused', message: /load_weight 1024/ });
  guest.put(task.address, load_weight!, 128n);
  guest.put(task.address, normal_prio!, 125n);
  t.throws(() => plan(250), { code: 'refused', message: /lock/ });
});

test('a held lock, a changed memory and a running domain are refused', async (t) => {
  const guest = build([{ cpu: 0, prio: 120, which: 'active' }]);
  const task = guest.tasks[0]!;
  const plan = dequeue(task);
  const edit = planned(guest, plan);
  const guard = await guest.domain.pause.acquire();
  await guard.release();
  const running = await t.throwsAsync(commit(guest.domain, guest.space, guard, edit));
  t.is((running as DomschedError).code, 'edit-conflict');
  await using again = await guest.domain.pause.acquire();
  guest.domain.image.store(
    Number(guest.queues[0]!.address) + members.rq.nr_running.offset,
    new Uint8Array([2]),
  );
  const changed = await t.throwsAsync(commit(guest.domain, guest.space, again, edit));
  t.is((changed as DomschedError).code, 'edit-conflict');
  guest.write();
  guest.domain.image.store(
    Number(guest.queues[2]!.address) + members.rq.lock.word!.offset,
    new Uint8Array(4),
  );
  t.throws(() => planned(guest, plan), { code: 'lock-held' });
  t.is(guest.domain.recorder.count('write'), 0);
});

test('a domain that ends before the first byte is written is gone, not in conflict', async (t) => {
  for (const when of ['before', 'meanwhile']) {
    const guest = build([{ cpu: 0, prio: 120, which: 'active' }]);
    const edit = planned(guest, dequeue(guest.tasks[0]!));
    const guard = await guest.domain.pause.acquire();
    let over = 0;
    if (when === 'before') guest.domain.destroy();
    const ended = commit(guest.domain, guest.space, guard, edit, async () => {
      guest.domain.destroy();
      return () => {
        over += 1;
      };
    });
    const error = await t.throwsAsync(ended, { instanceOf: DomschedError });
    t.is((error as DomschedError).code, 'domain-gone', when);
    t.is(over, when === 'before' ? 0 : 1, 'a journal is told when it is over');
    t.is(guest.domain.recorder.count('write'), 0);
  }
});

test('an edit tells in words what it would do', (t) => {
  const guest = build([
    { cpu: 0, prio: 120, which: 'active' },
    { cpu: 0, prio: 120, which: 'active' },
  ]);
  const edit = planned(guest, dequeue(guest.tasks[0]!));
  const lines = describeEdit(edit);
  t.true(lines.includes('rq[0].nr_running 2 -> 1'));
  t.true(lines.includes('rq[0].active.nr_active 2 -> 1'));
});
