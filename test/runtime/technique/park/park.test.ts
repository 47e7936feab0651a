import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { Draft } from '../../../../runtime/edit/draft.ts';
import type { Edit } from '../../../../runtime/edit/edit.ts';
import { commit } from '../../../../runtime/edit/transaction.ts';
import { knownKernels } from '../../../../runtime/layout/registry.ts';
import type { AnyLayout } from '../../../../runtime/layout/types.ts';
import { LayoutView } from '../../../../runtime/layout/view.ts';
import { ParkHolder } from '../../../../runtime/surgeon/park-holder.ts';
import { parkMembers } from '../../../../runtime/technique/park/members.ts';
import { holesOf } from '../../../../runtime/technique/park/scratch.ts';
import { checkFaults, checkOmissions, type Editable } from '../../edit/every-edit.ts';
import { TASK_STOPPED } from '../bits.ts';
import { isClean, type ModelThread, ParkModel, TRAP_FREEZE } from './park-guest.ts';

const layouts: { release: string; layout: LayoutView; module: AnyLayout }[] = [];
/** One of each series, however many there are. */
const bySeries = new Map(
  (await knownKernels()).flatMap((kernel) => {
    const series = /^6\.(1|12)\..*-cloud-amd64$/.exec(kernel.release)?.[1];
    return series === undefined ? [] : [[series, kernel] as const];
  }),
);
for (const kernel of bySeries.values()) {
  const { layout } = (await import(`../../../../generated/${kernel.folder}/index.ts`)) as {
    layout: AnyLayout;
  };
  layouts.push({ release: kernel.release, layout: await kernel.load(), module: layout });
}

/**
 * A kernel like 6.19's: task_struct and rq have no padding, the fpu is behind the task, and there is that of the task state
 * segment (arch/x86/include/asm/processor.h, `struct tss_struct`).
 */
function withoutPadding(module: AnyLayout, view: LayoutView): LayoutView {
  const filled = ['task_struct', 'sched_entity', 'rq', 'cfs_rq'].map((struct) => {
    const holes = holesOf(view, struct).filter(({ owner }) => owner === struct);
    const fillers = holes.map(({ offset, size }) => [
      `filler_${offset}`,
      { offset, size, type: `char [${size}]`, kind: 'array', length: size },
    ]);
    return [struct, { ...module[struct]!, ...Object.fromEntries(fillers) }];
  });
  const { fpu: _, ...thread_struct } = module.thread_struct as unknown as Record<string, unknown>;
  const used = { offset: 0, size: 16_520, type: 'char [16520]', kind: 'array', length: 16_520 };
  const names = { $name: 'tss_struct', $sourceName: 'tss_struct', $kind: 'struct', $size: 20_480 };
  const tss_struct = { ...names, $anonymous: [], used };
  return new LayoutView({
    ...module,
    ...Object.fromEntries(filled),
    thread_struct,
    tss_struct,
  } as unknown as AnyLayout);
}

for (const { release, layout, module } of layouts.filter((each) => each.release.startsWith('6.12.')))
  layouts.push({ release: `${release} without padding`, layout: withoutPadding(module, layout), module });

type Verb = 'hold' | 'release' | 'giveBack';

/** The edit that a holder plans for one thread; null when there is nothing to do, or not now. */
function planned(model: ParkModel, { address }: ModelThread, verb: Verb): Edit | null {
  const holder = new ParkHolder(model.guest);
  const draft = new Draft(model.space);
  if (verb === 'giveBack') {
    const others = model.present.filter((other) => other.address !== address);
    const { outcome } = holder.planGiveBack(draft, () => others.map((other) => other.address));
    return outcome.length === 0 ? null : draft.edit(verb, holder.invariants(), outcome);
  }
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
  for (const { address, bytes } of edit.reads)
    model.checkAllocated(address, bytes.length, `a ${verb} of ours`);
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
  t.is(layouts.length, 3);
  const words = layouts.map(({ layout }) => parkMembers(layout));
  t.deepEqual(
    words.map(({ fpu, irqWorkVariable }) => [fpu !== null, irqWorkVariable]),
    [
      [false, 'runqueues'],
      [false, 'runqueues'],
      [true, 'cpu_tss_rw'],
    ],
  );
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
        'kill',
        'reap',
        'giveBack',
      ),
      pick: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(action, { maxLength: 60 }), async (actions) => {
        const model = new ParkModel(layout);
        model.addThread('user');
        model.addThread('sleeping');
        // One that nobody holds or kills.
        model.addThread('user');
        for (const { what, pick } of actions) {
          const thread = model.present[pick % model.present.length]!;
          const before = { progress: thread.progress, stands: standing(model, thread) };
          if (what === 'step') model.step(thread);
          else if (what === 'tick') model.tick(pick % 2);
          else if (what === 'work') model.addWork(thread);
          else if (what === 'irqWork') model.addIrqWork(pick % 2);
          else if (what === 'sleep') model.sleep(thread);
          else if (what === 'stop') model.stop(thread);
          else if (what === 'proceed') model.proceed(thread);
          else if (what === 'kill' && thread !== model.threads[2]) model.kill(thread);
          else if (what === 'reap') model.reap(thread);
          else if (what === 'fork' && thread.stage === 'user' && model.threads.length < 6)
            model.addThread('user', thread);
          else if (what === 'hold' || what === 'release' || what === 'giveBack')
            await perform(model, thread, what);
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
    t.true(await perform(model, thread, 'giveBack'), 'the words go back');
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
      t.true(await perform(model, thread, 'giveBack'), 'the words go back');
      t.true(isClean(model, thread));
      t.false(await perform(model, thread, 'release'), 'nothing is left to do');
    }
  });

  const edits: [string, Verb, (model: ParkModel) => void][] = [
    ['arm', 'hold', () => {}],
    ['disarm', 'release', hold],
    ['wake', 'release', trap],
    ['give back', 'giveBack', woken],
    ['free', 'giveBack', ended],
  ];
  for (const [name, verb, prepare] of edits) {
    const make = async (): Promise<Editable> => {
      const model = new ParkModel(layout);
      const thread = model.addThread('user');
      model.addWork(thread);
      model.addIrqWork(0);
      prepare(model);
      // A first work behind ours, so that every link matters.
      if (prepare === hold) model.addIrqWork(1);
      return { domain: model.domain, space: model.space, plan: () => planned(model, thread, verb)! };
    };

    test(`${release}: ${name}: a fault at every memory operation leaves the old image or the new one`, (t) =>
      checkFaults(t, name, make));

    test(`${release}: ${name}: leaving out any one write is noticed, and the guest put back`, (t) =>
      checkOmissions(t, name, make));

    if (name === 'free') continue;
    test(`${release}: ${name}: killed after any word of it, and the thread can be held and let go again`, async (t) => {
      for (const busy of [true, false])
        for (let words = 0, all = 1; words <= all; words++) {
          const model = new ParkModel(layout);
          const thread = model.addThread('user');
          // In every list, so that each word that we write to is another one than 0.
          if (busy) for (const cpu of [0, 1]) model.addIrqWork(cpu);
          prepare(model);
          if (busy && thread.stage === 'user') model.addWork(thread);
          const { writes } = planned(model, thread, verb)!;
          all = writes.length;
          for (const { address, size, new: value } of writes.slice(0, words))
            model.put(address, { offset: 0, size }, value);
          for (let round = 0; standing(model, thread) !== 'held' && round < 16; round++) {
            await perform(model, thread, 'hold');
            model.step(thread);
            for (const cpu of [0, 1]) model.tick(cpu);
            await perform(model, thread, 'giveBack');
          }
          t.is(
            standing(model, thread),
            'held',
            `after ${words} of ${all} words, works of the guest's own: ${busy}`,
          );
          // One reference may be left over, and then the guest does not free one task.
          t.true((await settle(t, model, ['usage'])) <= 1n);
        }
    });
  }

  test(`${release}: refusals change nothing`, async (t) => {
    const { task_struct, cgroup, workHome, fpu } = new ParkModel(layout).guest.members;
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
    if (fpu !== null)
      cases.push([
        'a task whose registers are elsewhere',
        'refused',
        (model, { address }) => model.put(address, fpu.fpstate, 0x1000n),
      ]);
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
    const { task_struct } = model.guest.members;
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

  test(`${release}: padding of run queues is used only where nobody else does, and who could not be released is not held`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    const { cpus, members: resolved } = model.guest;
    const homes = cpus.flatMap(({ scratch }) => resolved.irqWorkHomes.map((home) => scratch + BigInt(home)));
    for (const home of homes) model.put(home, { offset: 16, size: 8 }, 7n);
    await t.throwsAsync(perform(model, thread, 'hold'), { code: 'refused' });
    for (const home of homes.slice(1)) model.put(home, { offset: 16, size: 8 }, 0n);
    t.true(await perform(model, thread, 'hold'));
    runIntoTrap(model, thread);
    t.true(await perform(model, thread, 'release'));
    t.is(model.load(homes[0]!, { offset: 16, size: 8 }), 7n);
    t.is(model.load(homes[1]!, resolved.irq_work.task), thread.address);
  });

  test(`${release}: references that no task has are refused`, async (t) => {
    for (const references of [0n, 0x4000_0000n, 0xc000_0000n]) {
      const model = new ParkModel(layout);
      const thread = model.addThread('user');
      trap(model);
      model.put(thread.address, model.guest.members.task_struct.usage, references);
      await t.throwsAsync(perform(model, thread, 'release'), { code: 'refused' }, `${references}`);
    }
  });

  test(`${release}: more threads than there is padding for are let go one after the other`, async (t) => {
    const model = new ParkModel(layout);
    const homes = model.guest.cpus.length * model.guest.members.irqWorkHomes.length;
    const threads = Array.from({ length: homes + 1 }, () => model.addThread('user'));
    for (const thread of threads) {
      t.true(await perform(model, thread, 'hold'));
      runIntoTrap(model, thread);
    }
    const let_go = [];
    for (const thread of threads) if (await perform(model, thread, 'release')) let_go.push(thread);
    t.is(let_go.length, homes);
    for (const { cpu } of model.guest.cpus) model.tick(cpu);
    t.true(await perform(model, threads[0]!, 'giveBack'));
    t.true(await perform(model, threads[homes]!, 'release'));
    await settle(t, model);
    for (const thread of threads) t.true(isClean(model, thread));
  });

  test(`${release}: one edit gives back a wake-up and asks for the next, in the same words or of the same task`, async (t) => {
    const model = new ParkModel(layout);
    const homes = model.guest.cpus.length * model.guest.members.irqWorkHomes.length;
    const threads = Array.from({ length: homes + 1 }, () => model.addThread('user'));
    for (const thread of threads) {
      await perform(model, thread, 'hold');
      runIntoTrap(model, thread);
    }
    for (const thread of threads) await perform(model, thread, 'release');
    for (const { cpu } of model.guest.cpus) model.tick(cpu);
    // Held again behind our back, before it left the trap.
    const { task_struct } = model.guest.members;
    const again = threads[0]!;
    model.put(again.address, task_struct.jobctl, TRAP_FREEZE);
    model.step(again);
    runIntoTrap(model, again);
    for (const waiting of [threads[homes]!, again]) {
      const holder = new ParkHolder(model.guest);
      await using guard = await model.domain.pause.acquire();
      const draft = new Draft(model.space);
      const { outcome } = holder.planGiveBack(draft, () => []);
      const step = holder.planRelease(draft, waiting.address);
      if (step === null || step === 'later') return t.fail('there is room for it');
      const edit = draft.edit('both', holder.invariants(), [...outcome, ...step.outcome]);
      await commit(model.domain, model.space, guard, edit);
      t.is(model.load(waiting.address, task_struct.usage), 2n);
    }
    await settle(t, model);
    for (const thread of threads) t.true(isClean(model, thread));
  });

  /** Between any two of these the process may be killed, reaped and freed. */
  const moments = ['held', 'trapped', 'released', 'woken', 'given back'] as const;
  for (const moment of moments) {
    test(`${release}: killed and reaped when it is ${moment}: nothing of it is touched once the guest has freed it`, async (t) => {
      const model = new ParkModel(layout);
      const [thread, other] = [model.addThread('user'), model.addThread('user')];
      const end = () => {
        model.kill(thread);
        for (let step = 0; thread.stage !== 'dead' && step < 12; step++) model.step(thread);
        model.reap(thread);
      };
      const steps: [(typeof moments)[number], () => unknown][] = [
        ['held', () => perform(model, thread, 'hold')],
        ['trapped', () => runIntoTrap(model, thread)],
        ['released', () => perform(model, thread, 'release')],
        ['woken', () => model.guest.cpus.forEach(({ cpu }) => void model.tick(cpu))],
        ['given back', () => perform(model, thread, 'giveBack')],
      ];
      for (const [name, step] of steps) {
        if (thread.stage === 'reaped' && (name === 'trapped' || name === 'released')) continue;
        await step();
        if (name === moment) end();
      }
      t.is(thread.stage, 'reaped');
      for (let step = 0; step < 4; step++) model.step(other);
      t.deepEqual(
        model.freed.map(({ start }) => start),
        [thread.address],
        'the guest has freed it',
      );
      t.true(isClean(model, other));
      t.true(other.progress > 0);
    });
  }

  test(`${release}: an ended task that nobody can free is kept, and said to be`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    ended(model);
    const holder = new ParkHolder({ ...model.guest, putTask: undefined });
    const draft = new Draft(model.space);
    const { outcome, kept } = holder.planGiveBack(draft, () => []);
    t.is(kept, 1);
    await using guard = await model.domain.pause.acquire();
    await commit(model.domain, model.space, guard, draft.edit('keep', holder.invariants(), outcome));
    t.deepEqual(model.freed, []);
    t.is(model.load(thread.address, model.guest.members.task_struct.usage), 1n);
    t.is(new ParkHolder(model.guest).planGiveBack(new Draft(model.space), () => []).pending, 0);
  });

  test(`${release}: whoever is killed after any word of a release, again and again: the next release ends well`, async (t) => {
    for (let words = 0, all = 1; words < all; words++) {
      const model = new ParkModel(layout);
      const thread = model.addThread('user');
      trap(model);
      // As often as there is padding for it, but once.
      let last = '';
      const deaths = model.guest.cpus.length * model.guest.members.irqWorkHomes.length - 1;
      for (let death = 0; death < Math.min(deaths, 2); death++) {
        const edit = planned(model, thread, 'release');
        if (edit === null) break;
        all = Math.max(all, edit.writes.length);
        last = edit.writes[words - 1]?.what ?? last;
        for (const { address, size, new: value } of edit.writes.slice(0, words))
          model.put(address, { offset: 0, size }, value);
        model.addIrqWork(0);
        if (death === 0) for (const { cpu } of model.guest.cpus) model.tick(cpu);
        model.step(thread);
      }
      // Whoever is killed between the reference and the task that it is to leaves the reference: the guest keeps the task's memory.
      const { usage } = model.guest.members.task_struct;
      const left = await settle(t, model, ['usage']);
      t.is(
        left > 0n,
        last.startsWith('task.usage'),
        `${left} references are left after ${words} of ${all} words`,
      );
      model.put(thread.address, usage, 1n);
      // The next hold takes the words that a dead release left in the task's padding.
      t.true(await perform(model, thread, 'hold'));
      runIntoTrap(model, thread);
      await settle(t, model);
      t.true(isClean(model, thread), `${words} of ${all} words`);
    }
  });

  test(`${release}: a CPU that has just taken a wake-up off its list may have it asked for once more`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    trap(model);
    t.true(await perform(model, thread, 'release'));
    const { lazyList } = model.guest.cpus[0]!;
    const taken = model.load(lazyList, { offset: 0, size: 8 });
    model.put(lazyList, { offset: 0, size: 8 }, 0n);
    t.false(await perform(model, thread, 'giveBack'), 'its words may still be run');
    // It was asked to park meanwhile, by whoever.
    model.put(thread.address, model.guest.members.task_struct.jobctl, TRAP_FREEZE);
    t.true(await perform(model, thread, 'release'));
    const second = model.load(lazyList, { offset: 0, size: 8 });
    t.not(second, taken);
    t.false(await perform(model, thread, 'giveBack'));
    model.put(lazyList, { offset: 0, size: 8 }, taken);
    model.tick(0);
    model.put(lazyList, { offset: 0, size: 8 }, second);
    await settle(t, model);
    t.true(isClean(model, thread));
  });

  test(`${release}: a wake-up goes to a CPU that is online, and to one that isn't idle where there is one`, async (t) => {
    const model = new ParkModel(layout);
    const thread = model.addThread('user');
    const { rq } = model.guest.members;
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
    const { task_struct } = model.guest.members;
    await perform(model, thread, 'hold');
    runIntoTrap(model, thread);
    // SIGSTOP wakes it in the trap, and do_signal_stop() has it sleep again: TASK_STOPPED.
    model.put(thread.address, task_struct.state, TASK_STOPPED);
    t.is(standing(model, thread), 'held');
    t.true(await perform(model, thread, 'release'));
    t.is(model.load(thread.address, task_struct.state), TASK_STOPPED);
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

/** Killed and reaped after its release, before a CPU ran the wake-up: ours is the last reference. */
function ended(model: ParkModel): void {
  trap(model);
  const thread = model.threads[0]!;
  const edit = planned(model, thread, 'release')!;
  for (const { address, size, new: value } of edit.writes) model.put(address, { offset: 0, size }, value);
  model.kill(thread);
  for (let step = 0; thread.stage !== 'dead' && step < 12; step++) model.step(thread);
  model.reap(thread);
  model.tick(0);
  model.addWork(model.addThread('user'));
}

/**
 * Everything is released and runs on: all goes on, nothing is left behind, every work of the guest ran once.
 * @param but what may be left
 * @returns references that are
 */
async function settle(t: ExecutionContext, model: ParkModel, but: readonly 'usage'[] = []): Promise<bigint> {
  let left = 0n;
  for (let round = 0; round < 16; round++) {
    for (const thread of model.present) {
      model.proceed(thread);
      await perform(model, thread, 'release');
      model.step(thread);
      model.reap(thread);
    }
    await perform(
      model,
      model.threads.find(({ stage }) => stage === 'reaped') ?? model.threads[0]!,
      'giveBack',
    );
    for (const { cpu } of model.guest.cpus) model.tick(cpu);
  }
  const reaped = model.threads.filter(({ stage }) => stage === 'reaped');
  t.is(model.freed.length, reaped.length, 'the guest has freed all that ended');
  for (const thread of model.present) {
    left += model.load(thread.address, model.guest.members.task_struct.usage) - 1n;
    t.is(thread.stage, 'user');
    const before = thread.progress;
    model.step(thread);
    t.true(thread.progress > before, 'released, and it stands still');
    t.is(thread.queued.size, 0);
    t.false(await perform(model, thread, 'release'));
  }
  for (const count of model.foreign.values()) t.is(count, 1);
  if (!but.includes('usage')) t.is(left, 0n);
  return left;
}
