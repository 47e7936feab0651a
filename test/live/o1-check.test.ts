/** Breaks each invariant of a live guest's scheduler from outside, and sees the guest say so. */
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { bootO1, type O1Guest, usableAccelerator } from './o1.ts';
import { O1Memory } from './o1-memory.ts';

/** A guest that is paused with its locks free; on CPU 0 one burner runs and others are ready. */
interface PausedScene {
  guest: O1Guest;
  memory: O1Memory;
  /** CPU 0's run queue. */
  rq: bigint;
  curr: bigint;
  /** A task that waits on CPU 0 for its turn. */
  ready: bigint;
  sleeping: bigint;
  /** Where list node, array and queue head of the ready task are. */
  node: bigint;
  array: bigint;
  head: bigint;
}

async function pause(guest: O1Guest, memory: O1Memory): Promise<PausedScene> {
  const rq = await memory.runqueue(0);
  for (let attempt = 0; attempt < 3000; attempt++) {
    await guest.qmp('stop');
    const tasks = await memory.tasks();
    const curr = await memory.get('runqueue', rq, 'curr');
    const ready = ['pi1', 'pi2', 'pi3'].map((comm) => tasks.get(comm)!).find((task) => task !== curr)!;
    const array = await memory.get('task_struct', ready, 'array');
    const sleeping = tasks.get('sleeper')!;
    const sleepingInfo = await memory.get('task_struct', sleeping, 'thread_info');
    const asleep =
      (await memory.get('task_struct', sleeping, 'array')) === 0n &&
      (await memory.get('thread_info', sleepingInfo, 'cpu')) === 0n;
    if ((await memory.unlocked(rq)) && array !== 0n && asleep && [...tasks.values()].includes(curr)) {
      const prio = await memory.get('task_struct', ready, 'prio');
      const head = array + memory.offset('prio_array', 'queue') + 16n * prio;
      return {
        guest,
        memory,
        rq,
        curr,
        ready,
        sleeping,
        node: ready + memory.offset('task_struct', 'run_list'),
        array,
        head,
      };
    }
    await guest.qmp('cont');
    await sleep(7);
  }
  throw new Error('no moment with a ready task and a free lock in 3000 pauses');
}

async function withScene(
  commandLine: string,
  act: (scene: PausedScene) => Promise<void>,
  morePrograms = '',
): Promise<void> {
  await using guest = await bootO1({
    commandLine: `run=pi1@0,pi2@0,pi3@0,pi4@1,sleeper:0@0/900/1${morePrograms} report=100 ${commandLine}`,
  });
  await guest.waitFor(/boot complete/);
  await guest.waitFor(/^pi[123] .*progress=/);
  await guest.waitFor(/^pi4 .*progress=/);
  await using memory = await O1Memory.open(guest, 'base');
  await act(await pause(guest, memory));
}

type Break = (scene: PausedScene) => Promise<void>;
const bit = (array: bigint, memory: O1Memory, n: bigint) => ({
  word: array + memory.offset('prio_array', 'bitmap') + (n / 64n) * 8n,
  mask: 1n << (n % 64n),
});

const breaks: [fact: string, message: RegExp, change: Break, commandLine?: string][] = [
  [
    'a queue head whose next link goes to the wrong place',
    /next->prev is not/,
    ({ memory, head }) => memory.write(head, memory.symbol('init_task')),
  ],
  [
    'a queue head whose prev link goes to the wrong place',
    /prev->next is not/,
    ({ memory, head }) => memory.write(head + 8n, memory.symbol('init_task')),
  ],
  [
    'a task whose next link goes to the wrong place',
    /(next->prev|prev->next) is not/,
    ({ memory, node }) => memory.write(node, memory.symbol('init_task')),
  ],
  [
    'a task whose prev link goes to the wrong place',
    /(next->prev|prev->next) is not/,
    ({ memory, node }) => memory.write(node + 8n, memory.symbol('init_task')),
  ],
  ['a link out of memory', /points outside memory/, ({ memory, head }) => memory.write(head, 0xdead0000n)],
  [
    'a list of all tasks that does not hang together',
    /tasks\[0\] (next->prev|prev->next) is not/,
    ({ memory, ready }) =>
      memory.write(ready + memory.offset('task_struct', 'tasks') + 8n, memory.symbol('init_task')),
  ],
  [
    'a bitmap bit cleared though its queue has tasks',
    /bitmap bit \d+ is 0 but the queue is not empty/,
    async ({ memory, array, ready }) => {
      const { word, mask } = bit(array, memory, await memory.get('task_struct', ready, 'prio'));
      await memory.write(word, (await memory.read(word)) & ~mask);
    },
  ],
  [
    'a bitmap bit set though its queue is empty',
    /bitmap bit 139 is 1 but the queue is empty/,
    async ({ memory, array }) => {
      const { word, mask } = bit(array, memory, 139n);
      await memory.write(word, (await memory.read(word)) | mask);
    },
  ],
  [
    'a bitmap without its delimiter',
    /bitmap delimiter/,
    async ({ memory, array }) => {
      const { word, mask } = bit(array, memory, 140n);
      await memory.write(word, (await memory.read(word)) & ~mask);
    },
  ],
  [
    'nr_active too high',
    /nr_active=\d+ but \d+ linked/,
    async ({ memory, array }) =>
      memory.set('prio_array', array, 'nr_active', (await memory.get('prio_array', array, 'nr_active')) + 1n),
  ],
  [
    'nr_running too low',
    /nr_running=\d+ but \d+ linked/,
    async ({ memory, rq }) =>
      memory.set('runqueue', rq, 'nr_running', (await memory.get('runqueue', rq, 'nr_running')) - 1n),
  ],
  [
    'a task whose array pointer is not where it is linked',
    /array pointer is not the array/,
    ({ memory, ready }) => memory.set('task_struct', ready, 'array', 0n),
  ],
  [
    'a task in the queue of another priority',
    /prio=\d+ but linked in queue\[\d+\]/,
    async ({ memory, ready }) =>
      memory.set('task_struct', ready, 'prio', (await memory.get('task_struct', ready, 'prio')) - 1n),
  ],
  [
    'a sleeping state on a task that is queued',
    /state=1 but queued/,
    ({ memory, ready }) => memory.set('task_struct', ready, 'state', 1n),
  ],
  [
    'a task queued on a CPU that is not its own',
    // Which CPU's check comes first is chance.
    /is linked here but belongs to cpu 1|is no array of this CPU/,
    async ({ memory, ready }) =>
      memory.set('thread_info', await memory.get('task_struct', ready, 'thread_info'), 'cpu', 1n),
  ],
  [
    'something in a queue that is no task',
    /which is no task/,
    async ({ memory, ready }) =>
      memory.set('thread_info', await memory.get('task_struct', ready, 'thread_info'), 'task', 0n),
  ],
  [
    'one array both active and expired',
    /are not the two arrays/,
    async ({ memory, rq }) =>
      memory.set('runqueue', rq, 'expired', await memory.get('runqueue', rq, 'active')),
  ],
  [
    'an active array somewhere else',
    /are not the two arrays/,
    ({ memory, rq }) => memory.set('runqueue', rq, 'active', rq),
  ],
  [
    'a queued idle task',
    /the idle task is queued/,
    async ({ memory, rq, array }) =>
      memory.set('task_struct', await memory.get('runqueue', rq, 'idle'), 'array', array),
  ],
  ['a current task taken off its queue', /is linked 0 times/, (scene) => splice(scene, scene.curr)],
  [
    'one task linked in two queues',
    /(next->prev|prev->next) is not/,
    async ({ memory, array, node }) => {
      const other = array + memory.offset('prio_array', 'queue') + 16n * 139n;
      await memory.write(other, node);
      await memory.write(other + 8n, node);
    },
  ],
  [
    'a task that says it is queued and is linked nowhere',
    /\d+ tasks say that they are queued, nr_running=\d+/,
    ({ memory, sleeping, array }) => memory.set('task_struct', sleeping, 'array', array),
  ],
  [
    'a task that says it is in an array of another CPU',
    /is no array of this CPU/,
    async ({ memory, sleeping }) =>
      memory.set(
        'task_struct',
        sleeping,
        'array',
        await memory.get('runqueue', await memory.runqueue(1), 'active'),
      ),
  ],
  [
    'a runnable task on no queue (strict)',
    /is TASK_RUNNING but on no queue/,
    (scene) => splice(scene, scene.ready),
    'strict',
  ],
  [
    'a queued task without a time slice (strict)',
    /time_slice=0 out of range/,
    ({ memory, ready }) => memory.set('task_struct', ready, 'time_slice', 0n),
    'strict',
  ],
  [
    'a nice value that does not exist (strict)',
    /static_prio=200 out of range/,
    ({ memory, ready }) => memory.set('task_struct', ready, 'static_prio', 200n),
    'strict',
  ],
  [
    'a dead task in a queue (strict)',
    /exit_state=16 but queued/,
    ({ memory, ready }) => memory.set('task_struct', ready, 'exit_state', 16n),
    'strict',
  ],
];

/** Takes a queued task off its queue with every count kept right, as a surgeon does. */
async function splice({ memory, rq }: PausedScene, task: bigint): Promise<void> {
  const node = task + memory.offset('task_struct', 'run_list');
  const array = await memory.get('task_struct', task, 'array');
  const prio = await memory.get('task_struct', task, 'prio');
  const [next, prev] = [await memory.read(node), await memory.read(node + 8n)];
  await memory.write(prev, next);
  await memory.write(next + 8n, prev);
  if (next === prev) {
    const { word, mask } = bit(array, memory, prio);
    await memory.write(word, (await memory.read(word)) & ~mask);
  }
  await memory.set(
    'prio_array',
    array,
    'nr_active',
    (await memory.get('prio_array', array, 'nr_active')) - 1n,
  );
  await memory.set('runqueue', rq, 'nr_running', (await memory.get('runqueue', rq, 'nr_running')) - 1n);
  await memory.set('task_struct', task, 'array', 0n);
}

/** Puts it back at the end of its queue in the active array. */
async function enqueue({ memory, rq }: PausedScene, task: bigint): Promise<void> {
  const node = task + memory.offset('task_struct', 'run_list');
  const array = await memory.get('runqueue', rq, 'active');
  const prio = await memory.get('task_struct', task, 'prio');
  const head = array + memory.offset('prio_array', 'queue') + 16n * prio;
  const last = await memory.read(head + 8n);
  await memory.write(node, head);
  await memory.write(node + 8n, last);
  await memory.write(last, node);
  await memory.write(head + 8n, node);
  const { word, mask } = bit(array, memory, prio);
  await memory.write(word, (await memory.read(word)) | mask);
  await memory.set(
    'prio_array',
    array,
    'nr_active',
    (await memory.get('prio_array', array, 'nr_active')) + 1n,
  );
  await memory.set('runqueue', rq, 'nr_running', (await memory.get('runqueue', rq, 'nr_running')) + 1n);
  await memory.set('task_struct', task, 'array', array);
}

test.before(async (t) => {
  t.log(`guests run on ${await usableAccelerator()}`);
});

test.serial('the guest stops with a BUG line on each broken invariant', async (t) => {
  t.timeout(900_000);
  for (const [fact, message, change, commandLine = ''] of breaks)
    await withScene(commandLine, async (scene) => {
      t.false(
        scene.guest.lines.some((line) => line.includes('BUG')),
        `${fact}: not before`,
      );
      await change(scene);
      await scene.guest.qmp('cont');
      const line = await scene.guest.waitFor(/^BUG: /, 20_000);
      t.regex(line, message, fact);
      await scene.guest.waitFor(/^System halted/);
      const count = scene.guest.lines.length;
      await sleep(120);
      t.is(scene.guest.lines.length, count, `${fact}: no CPU goes on`);
    });
});

test.serial('a run-queue lock that is free while it should be held is seen', async (t) => {
  const act = async ({ guest, memory, rq }: PausedScene) => {
    for (let held = 0, pauses = 0; pauses < 3000 && !guest.lines.some((l) => l.startsWith('BUG')); pauses++) {
      if (!(await memory.unlocked(rq))) {
        await memory.write(rq, 1n, 4);
        held++;
        t.log(`held at pause ${pauses}, broken for the ${held}. time`);
      }
      await guest.qmp('cont');
      await sleep(1);
      await guest.qmp('stop');
    }
    await guest.qmp('cont');
    t.regex(await guest.waitFor(/^BUG: /, 5000), /run-queue lock is free while held: slock=1/);
  };
  // Two that wake each other all the time: the lock is held in every few pauses.
  await withScene('', act, ',pair@0,forker');
});

/** Checks that a task makes no progress for a while, and does afterwards; the guest runs meanwhile. */
async function heldThenReleased(
  t: ExecutionContext,
  scene: PausedScene,
  task: bigint,
  release: () => Promise<void>,
) {
  const { guest, memory } = scene;
  const ticks = async () =>
    (await memory.get('task_struct', task, 'utime')) + (await memory.get('task_struct', task, 'stime'));
  await guest.qmp('cont');
  await sleep(150);
  const before = await ticks();
  await sleep(600);
  t.is(await ticks(), before, 'no CPU time while held');
  await guest.qmp('stop');
  for (let tries = 0; !(await memory.unlocked(scene.rq)) && tries < 100; tries++) {
    await guest.qmp('cont');
    await sleep(3);
    await guest.qmp('stop');
  }
  await release();
  await guest.qmp('cont');
  for (let waited = 0; (await ticks()) < before + 5n && waited < 10_000; waited += 50) await sleep(50);
  t.true((await ticks()) >= before + 5n, 'CPU time again');
  t.false(guest.lines.some((line) => line.includes('BUG')));
}

test.serial('a ready task spliced out from outside is legal, and comes back', async (t) => {
  await withScene('', async (scene) => {
    await splice(scene, scene.ready);
    await heldThenReleased(t, scene, scene.ready, () => enqueue(scene, scene.ready));
  });
});

test.serial('a running task leaves its queue when its state says so, strict checks included', async (t) => {
  await withScene('strict', async (scene) => {
    const { memory, curr } = scene;
    const info = await memory.get('task_struct', curr, 'thread_info');
    await memory.set('task_struct', curr, 'state', 4n);
    await memory.set('thread_info', info, 'flags', (await memory.get('thread_info', info, 'flags')) | 8n);
    await heldThenReleased(t, scene, curr, async () => {
      t.is(await memory.get('task_struct', curr, 'array'), 0n, 'off the queue');
      await memory.set('task_struct', curr, 'state', 0n);
      await enqueue(scene, curr);
    });
  });
});
