import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import { Draft } from '../../../runtime/surgery/draft.ts';
import type { Edit } from '../../../runtime/surgery/edit.ts';
import { ParkHolder } from '../../../runtime/surgery/park-holder.ts';
import { commit } from '../../../runtime/surgery/transaction.ts';
import { checkFaults, checkOmissions, type Editable } from './every-edit.ts';
import { isClean, type ModelThread, ParkModel, TRAP_FREEZE } from './park-guest.ts';

const layouts: { release: string; layout: LayoutView }[] = [];
for (const kernel of await knownKernels()) {
  if (!/^6\.(1|12)\..*-cloud-amd64$/.test(kernel.release)) continue;
  layouts.push({ release: kernel.release, layout: await kernel.load() });
}

type Verb = 'hold' | 'release';

/** The edit that a holder plans for one thread; null when there is nothing to do, or not now. */
function planned(model: ParkModel, { address }: ModelThread, verb: Verb): Edit | null {
  const holder = new ParkHolder(model.guest);
  const draft = new Draft(model.space);
  if (verb === 'hold' && ['held', 'exempt'].includes(holder.standing(draft, address))) return null;
  const step =
    verb === 'hold' ? holder.planHold(draft, address, ['park']) : holder.planRelease(draft, address);
  if (step === null || step === 'later') return null;
  return draft.edit(verb, holder.invariants(), step.outcome);
}

async function perform(model: ParkModel, thread: ModelThread, verb: Verb): Promise<boolean> {
  await using guard = await model.domain.pause.acquire();
  const edit = planned(model, thread, verb);
  if (edit === null) return false;
  await commit(model.domain, model.space, guard, edit);
  return true;
}

function standing(model: ParkModel, { address }: ModelThread): string {
  return new ParkHolder(model.guest).standing(new Draft(model.space), address);
}

/** The guest's kernel takes a thread on until it is in the trap. */
function runIntoTrap(model: ParkModel, thread: ModelThread): void {
  for (let steps = 0; thread.stage !== 'trapped' && steps < 10; steps++) model.step(thread);
}

test('there are layouts of 6.1 and 6.12 to test with', (t) => {
  t.is(layouts.length, 2);
});

for (const { release, layout } of layouts) {
  test(`${release}: under any interleaving with the guest, what is held stands still and what is released goes on`, async (t) => {
    const action = fc.record({
      what: fc.constantFrom(
        'step',
        'step',
        'step',
        'tick',
        'hold',
        'release',
        'work',
        'irqWork',
        'fork',
        'sleep',
        'stop',
        'proceed',
      ),
      pick: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
        const model = new ParkModel(layout);
        model.addThread('user');
        model.addThread('sleeping');
        for (const { what, pick } of actions) {
          const thread = model.threads[pick % model.threads.length]!;
          const before = { progress: thread.progress, stands: standing(model, thread) };
          if (what === 'step') model.step(thread);
          else if (what === 'tick') model.tick(pick % 2);
          else if (what === 'work') model.addWork(thread);
          else if (what === 'irqWork') model.addIrqWork(pick % 2);
          else if (what === 'sleep') model.sleep(thread);
          else if (what === 'stop') model.stop(thread);
          else if (what === 'proceed') model.proceed(thread);
          else if (what === 'fork' && thread.stage === 'user' && model.threads.length < 6)
            model.addThread('user', thread);
          else if (what === 'hold' || what === 'release') await perform(model, thread, what);
          if (before.stands === 'held') t.is(thread.progress, before.progress, 'held, and it made progress');
        }
        await settle(t, model);
      }),
      { numRuns: 300 },
    );
  });

  test(`${release}: stopped by a signal, held and continued: it waits in the trap, and goes on when it is released`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    model.stop(thread);
    t.true(await perform(model, thread, 'hold'));
    t.is(standing(model, thread), 'held');
    model.proceed(thread);
    model.step(thread);
    t.is(thread.stage, 'entering');
    t.false(await perform(model, thread, 'release'), 'not between its look and its sleep');
    runIntoTrap(model, thread);
    t.is(standing(model, thread), 'held');
    await settle(t, model);
    t.true(isClean(model, thread));
  });

  test(`${release}: held again before it has left the trap: it stays there, and goes on when it is released`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    t.true(await perform(model, thread, 'hold'));
    runIntoTrap(model, thread);
    t.true(await perform(model, thread, 'release'));
    for (const cpu of [0, 1]) model.tick(cpu);
    t.true(await perform(model, thread, 'release'), 'the words go back');
    t.true(await perform(model, thread, 'hold'), 'awake, but it has not run');
    t.is(standing(model, thread), 'leaving');
    model.step(thread);
    runIntoTrap(model, thread);
    t.is(standing(model, thread), 'held');
    await settle(t, model);
    t.true(isClean(model, thread));
  });

  test(`${release}: hold, release and giving back touch nothing else in the task`, async (t) => {
    for (const stage of ['user', 'sleeping'] as const) {
      const model = new ParkModel(layout);
      const thread = model.addThread(stage);
      model.addWork(thread);
      const before = model.domain.image.clone();
      t.true(await perform(model, thread, 'hold'));
      t.is(standing(model, thread), stage === 'user' ? 'leaving' : 'held');
      t.true(await perform(model, thread, 'release'));
      t.deepEqual(model.domain.image.differences(before), [], 'a hold that came to nothing leaves no trace');
      t.true(await perform(model, thread, 'hold'));
      runIntoTrap(model, thread);
      t.is(standing(model, thread), 'held');
      t.is(thread.queued.size, 0, "the guest's own work ran");
      t.true(await perform(model, thread, 'release'));
      t.is(standing(model, thread), 'changing');
      t.false(await perform(model, thread, 'hold'), 'not while a wake-up is under way');
      model.tick(0);
      model.tick(1);
      t.true(await perform(model, thread, 'release'), 'the words go back');
      t.true(isClean(model, thread));
      t.false(await perform(model, thread, 'release'), 'nothing is left to do');
    }
  });

  const edits: [string, Verb, (model: ParkModel) => void][] = [
    ['arm', 'hold', () => {}],
    ['disarm', 'release', hold],
    ['wake', 'release', trap],
    ['give back', 'release', woken],
  ];
  for (const [name, verb, prepare] of edits) {
    const make = async (): Promise<Editable> => {
      const model = new ParkModel(layout);
      const thread = model.addThread('user');
      model.addWork(thread);
      model.addIrqWork(0);
      prepare(model);
      // A first work behind ours, so that every link matters.
      if (prepare !== trap && prepare !== woken) model.addIrqWork(1);
      return { domain: model.domain, space: model.space, plan: () => planned(model, thread, verb)! };
    };

    test(`${release}: ${name}: a fault at every memory operation leaves the old image or the new one`, (t) =>
      checkFaults(t, name, make));

    test(`${release}: ${name}: leaving out any one write is noticed, and the guest put back`, (t) =>
      checkOmissions(t, name, make));
  }

  test(`${release}: refusals change nothing`, async (t) => {
    const { task_struct, cgroup, workHome } = new ParkModel(layout).guest.layout;
    const cases: [string, string | null, (model: ParkModel, thread: ModelThread) => void][] = [
      ['a traced task', 'refused', (model, { address }) => model.put(address, task_struct.ptrace, 1n)],
      ['a task that the guest froze', 'refused', (model) => model.put(model.cgroup, cgroup.e_freeze, 1n)],
      [
        'padding in use',
        'refused',
        (model, { address }) => model.put(address, { offset: workHome, size: 8 }, 5n),
      ],
      ['siglock held', 'lock-held', (model) => model.put(model.sighand, { offset: 0, size: 4 }, 1n)],
      [
        'pi_lock held',
        'lock-held',
        (model, { address }) => model.put(address, { offset: task_struct.pi_lock.word!.offset, size: 4 }, 1n),
      ],
      ['a kernel thread', null, (model, { address }) => model.put(address, task_struct.flags, 0x20_0000n)],
      ['an io worker', null, (model, { address }) => model.put(address, task_struct.flags, 0x10n)],
      ['an exiting task', null, (model, { address }) => model.put(address, task_struct.flags, 4n)],
      ['a task without user memory', null, (model, { address }) => model.put(address, task_struct.mm, 0n)],
    ];
    for (const [name, code, prepare] of cases) {
      const model = new ParkModel(layout);
      const thread = model.addThread('user');
      prepare(model, thread);
      const before = model.domain.image.clone();
      if (code === null) {
        t.is(standing(model, thread), 'exempt', name);
        t.false(await perform(model, thread, 'hold'), name);
      } else {
        await t.throwsAsync(perform(model, thread, 'hold'), { code }, name);
      }
      t.deepEqual(model.domain.image.differences(before), [], name);
      t.is(model.domain.recorder.count('write'), 0, name);
    }
  });

  test(`${release}: lists without an end are refused`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    const { task_struct } = model.guest.layout;
    const ring = thread.address + 0x800n;
    model.put(ring, { offset: 0, size: 8 }, ring);
    model.put(thread.address, task_struct.task_works, ring);
    await t.throwsAsync(perform(model, thread, 'hold'), { code: 'walk-unbounded' });
    const other = new ParkModel(layout);
    const parked = other.addThread('user');
    await perform(other, parked, 'hold');
    runIntoTrap(other, parked);
    const list = other.guest.cpus[0]!.lazyList;
    other.put(list, { offset: 0, size: 8 }, list);
    await t.throwsAsync(perform(other, parked, 'release'), { code: 'walk-unbounded' });
  });

  test(`${release}: the end of a stack is used only when it is proved to be free`, async (t) => {
    const { irqWorkHome, task_struct } = new ParkModel(layout).guest.layout;
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    await perform(model, thread, 'hold');
    runIntoTrap(model, thread);
    const stack = model.load(thread.address, task_struct.stack);
    if (irqWorkHome === null) {
      for (const [offset, value] of [
        [0, 0n],
        [40, 7n],
      ] as const) {
        const old = model.load(stack, { offset, size: 8 });
        model.put(stack, { offset, size: 8 }, value);
        await t.throwsAsync(perform(model, thread, 'release'), { code: 'refused' });
        model.put(stack, { offset, size: 8 }, old);
      }
      model.put(thread.address, task_struct.sp, stack + 1000n);
      await t.throwsAsync(perform(model, thread, 'release'), { code: 'refused' });
      model.put(thread.address, task_struct.sp, stack + 9000n);
    } else {
      model.put(thread.address, { offset: irqWorkHome + 16, size: 8 }, 7n);
      await t.throwsAsync(perform(model, thread, 'release'), { code: 'refused' });
      model.put(thread.address, { offset: irqWorkHome + 16, size: 8 }, 0n);
    }
    t.true(await perform(model, thread, 'release'));
  });

  test(`${release}: a wake-up goes to a CPU that is online, and to one that isn't idle where there is one`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    const { rq } = model.guest.layout;
    const [first, second] = model.guest.cpus;
    await perform(model, thread, 'hold');
    runIntoTrap(model, thread);
    const listed = () => {
      const edit = planned(model, thread, 'release')!;
      return edit.writes.find(({ what }) => what.startsWith('lazy_list'))!.address;
    };
    t.is(listed(), first!.lazyList);
    model.put(second!.queue, rq.curr, 0x1234_0000n);
    t.is(listed(), second!.lazyList);
    model.put(model.guest.onlineMask, { offset: 0, size: 8 }, 1n);
    t.is(listed(), first!.lazyList);
    model.put(model.guest.onlineMask, { offset: 0, size: 8 }, 0n);
    t.throws(() => planned(model, thread, 'release'), { code: 'guest-inconsistent' });
  });

  test(`${release}: a task that the guest stopped, then released, stays stopped`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    const { task_struct } = model.guest.layout;
    await perform(model, thread, 'hold');
    runIntoTrap(model, thread);
    // SIGSTOP wakes it in the trap, and do_signal_stop() has it sleep again: TASK_STOPPED.
    model.put(thread.address, task_struct.state, 4n);
    t.is(standing(model, thread), 'held');
    t.true(await perform(model, thread, 'release'));
    t.is(model.load(thread.address, task_struct.state), 4n);
    t.is(model.load(thread.address, task_struct.jobctl) & TRAP_FREEZE, 0n);
    t.true(isClean(model, thread));
  });
}

function hold(model: ParkModel): void {
  const edit = planned(model, model.threads[0]!, 'hold')!;
  for (const { address, size, new: value } of edit.writes) model.put(address, { offset: 0, size }, value);
}

function trap(model: ParkModel): void {
  hold(model);
  runIntoTrap(model, model.threads[0]!);
}

function woken(model: ParkModel): void {
  trap(model);
  const edit = planned(model, model.threads[0]!, 'release')!;
  for (const { address, size, new: value } of edit.writes) model.put(address, { offset: 0, size }, value);
  model.tick(0);
}

/** Everything is released and runs on: all goes on, nothing is left behind, every work of the guest ran once. */
async function settle(t: ExecutionContext, model: ParkModel): Promise<void> {
  for (let round = 0; round < 24; round++) {
    for (const thread of model.threads) {
      model.proceed(thread);
      await perform(model, thread, 'release');
      model.step(thread);
    }
    for (const { cpu } of model.guest.cpus) model.tick(cpu);
  }
  for (const thread of model.threads) {
    t.is(thread.stage, 'user');
    const before = thread.progress;
    model.step(thread);
    t.true(thread.progress > before, 'released, and it stands still');
    t.is(thread.queued.size, 0);
    t.false(await perform(model, thread, 'release'));
  }
  for (const count of model.foreign.values()) t.is(count, 1);
}
