/** What splice and state ask of a thread before they touch it, and how each release finds its own hold. */
import test from 'ava';
import { Draft } from '../../../runtime/edit/draft.ts';
import { commit } from '../../../runtime/edit/transaction.ts';
import type { VcpuRegisters } from '../../../runtime/hypervisor/types.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import { advance, type GuestVirtual } from '../../../runtime/memory/address.ts';
import { canSpliceFair } from '../../../runtime/technique/fair/members.ts';
import { sharesMembers } from '../../../runtime/technique/fair/shares.ts';
import { isAtUserBorder } from '../../../runtime/technique/fair/user-border.ts';
import { checkFaults, checkOmissions, type Editable } from '../edit/every-edit.ts';
import { TASK_INTERRUPTIBLE, TASK_PARKED, TIF } from '../technique/bits.ts';
import { NO_REQUEST } from '../technique/fair/fair-guest.ts';
import { Bench, CALLS, ELSEWHERE, INT, llcOf, WORD, WORDS } from './fair-bench.ts';

const layouts: { release: string; layout: LayoutView }[] = [];
for (const kernel of await knownKernels()) {
  if (/^6\.(1|12)\..*-cloud-amd64$/.test(kernel.release))
    layouts.push({ release: kernel.release, layout: await kernel.load() });
}

const { NEED_RESCHED } = TIF;

for (const { release, layout } of layouts) {
  test(`${release}: only a stack that leads straight to user mode says so`, (t) => {
    const bench = new Bench(layout);
    const { address } = bench.ready;
    const cases: [string, boolean, () => void][] = [
      ['preempted on the way out of an interrupt', true, () => bench.stack(address)],
      ['registers of kernel mode', false, () => bench.stack(address, {}, 0n)],
      ['another call of __schedule()', false, () => bench.stack(address, { 6: ELSEWHERE })],
      ['another function than schedule()', false, () => bench.stack(address, { 17: ELSEWHERE })],
      ['called from elsewhere', false, () => bench.stack(address, { 20: ELSEWHERE })],
      ['not on the way to user mode', false, () => bench.stack(address, { 24: ELSEWHERE })],
      ['the loop again', false, () => bench.stack(address, { 24: CALLS.loop[0] })],
      ['the last frame is not the last one', false, () => bench.stack(address, { 20: CALLS.last[0] })],
      [
        'without a loop of its own',
        true,
        () => bench.stack(address, { 20: CALLS.last[0], 22: ELSEWHERE }, 3n, 23),
      ],
      [
        'a stack pointer that is wild',
        false,
        () => bench.put(bench.ready, bench.guest.members.task_struct.sp, 0x1234n),
      ],
    ];
    for (const [name, expected, prepare] of cases) {
      prepare();
      t.is(isAtUserBorder(bench.guest, new Draft(bench.model.space), address), expected, name);
    }
  });

  test(`${release}: the privilege level is read where the layout has it`, (t) => {
    const bench = new Bench(layout);
    const { members } = bench.guest;
    const { address } = bench.ready;
    bench.stack(address);
    const moved = { ...members, pt_regs: { ...members.pt_regs, cs: { offset: 8, size: 1 as const } } };
    const guest = { ...bench.guest, members: moved, wayOut: bench.guest.wayOut };
    t.false(isAtUserBorder(guest, new Draft(bench.model.space), address));
    const pointer = bench.get(bench.ready, members.task_struct.sp);
    bench.model.put(advance(pointer as GuestVirtual, 8 * WORDS), moved.pt_regs.cs, 0x33n);
    t.true(isAtUserBorder(guest, new Draft(bench.model.space), address));
  });

  test(`${release}: a ready thread is spliced, stands as held, and comes back`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct, rq } = bench.guest.members;
    const { address } = bench.model.guest.queues[0]!;
    t.is(bench.standing(bench.ready), 'ready');
    t.truthy(await bench.hold(bench.ready, 'splice'));
    t.is(bench.standing(bench.ready), 'held');
    t.is(bench.get(bench.ready, task_struct.state), 0n, 'TASK_RUNNING, which no wake-up touches');
    t.is(bench.model.load(address, rq.nr_running), 1n);
    t.truthy(await bench.release(bench.ready));
    t.is(bench.standing(bench.ready), 'ready');
    t.is(bench.model.load(address, rq.nr_running), 2n);
    t.is(await bench.release(bench.ready), null, 'nothing is left to do');
  });

  test(`${release}: what may hold something of the kernel's is left alone`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct } = bench.guest.members;
    t.is(await bench.hold(bench.running, 'splice'), null, 'it runs');
    bench.stack(bench.ready.address, { 17: ELSEWHERE });
    t.is(await bench.hold(bench.ready, 'splice', 'state'), null, 'preempted in the kernel');
    bench.stack(bench.ready.address);
    bench.put(bench.ready, task_struct.state, 2n);
    t.is(await bench.hold(bench.ready, 'splice', 'state'), null, 'about to sleep');
    bench.put(bench.ready, task_struct.state, 0n);
    bench.put(bench.ready, task_struct.on_rq, 2n);
    t.is(await bench.hold(bench.ready, 'splice', 'state'), null, 'on its way to another CPU');
    bench.put(bench.ready, task_struct.on_rq, 1n);
    bench.observe(0);
    t.is(await bench.hold(bench.running, 'state'), null, 'in the kernel');
    bench.holder.observe(new Map([[1, { vcpu: 0, cpl: 3 } as VcpuRegisters]]));
    t.is(await bench.hold(bench.running, 'state'), null, 'its CPU is none of those that are known');
    bench.holder.observe(new Map());
    await t.throwsAsync(bench.hold(bench.running, 'state'), { code: 'refused', message: /vCPU/ });
    t.is(bench.model.domain.recorder.count('write'), 0);
  });

  test(`${release}: locks, classes and groups that forbid a splice`, async (t) => {
    const { task_struct, rq, cfs_rq } = new Bench(layout).guest.members;
    const cases: [string, string | null, (bench: Bench) => void][] = [
      [
        'rq.lock held',
        'lock-held',
        ({ model }) =>
          model.put(model.guest.queues[0]!.address, { offset: rq.lock.word!.offset, size: 4 }, 1n),
      ],
      [
        'pi_lock held',
        'lock-held',
        (bench) => bench.put(bench.ready, { offset: task_struct.pi_lock.word!.offset, size: 4 }, 1n),
      ],
      ['a tracer', 'refused', (bench) => bench.put(bench.ready, task_struct.ptrace, 1n)],
      ['another class', 'refused', (bench) => bench.put(bench.ready, task_struct.sched_class, 0x1234n)],
      ['a real-time policy', 'refused', (bench) => bench.put(bench.ready, task_struct.policy, 1n)],
      ['NUMA balancing', 'refused', (bench) => bench.put(bench.ready, task_struct.numa_preferred_nid!, 0n)],
      [
        'a group without time',
        null,
        ({ model }) => model.put(model.groups[0]!.queues[0]!, cfs_rq.throttle_count!, 1n),
      ],
      [
        'an inconsistent queue',
        'guest-inconsistent',
        ({ model }) => model.put(model.groups[0]!.queues[0]!, cfs_rq.h_nr_queued, 7n),
      ],
    ];
    for (const [name, code, prepare] of cases) {
      const bench = new Bench(layout);
      prepare(bench);
      const before = bench.model.domain.image.clone();
      if (code === null) t.is(await bench.hold(bench.ready, 'splice'), null, name);
      else await t.throwsAsync(bench.hold(bench.ready, 'splice'), { code }, name);
      t.deepEqual(bench.model.domain.image.differences(before), [], name);
    }
  });

  test(`${release}: a scheduler that was loaded (sched_ext) has its threads left to it: no splice, no state, but park`, async (t) => {
    const SCHED_EXT = 7n;
    for (const policy of [0n, SCHED_EXT]) {
      for (const [which, technique] of [
        ['ready', 'splice'],
        ['ready', 'state'],
        ['running', 'state'],
      ] as const) {
        const bench = new Bench(layout);
        const { task_struct } = bench.guest.members;
        bench.observe(3);
        bench.put(bench[which], task_struct.sched_class, 0x1234n);
        bench.put(bench[which], task_struct.policy, policy);
        const before = bench.model.domain.image.clone();
        const about = `${which}, ${technique}, policy ${policy}`;
        const how = {
          code: 'refused',
          message: technique === 'splice' ? /was loaded/ : /sched_ext.* by park/,
        };
        await t.throwsAsync(bench.hold(bench[which], technique), how, about);
        t.deepEqual(bench.model.domain.image.differences(before), [], about);
        t.truthy(await bench.hold(bench[which], 'park'), about);
      }
    }
  });

  test(`${release}: a thread whose CPU or class went away stays held, and says why`, async (t) => {
    const bench = new Bench(layout);
    await bench.hold(bench.ready, 'splice');
    const mask = bench.get(bench.ready, bench.guest.members.task_struct.cpus_ptr);
    bench.model.put(mask, WORD, 2n);
    await t.throwsAsync(bench.release(bench.ready), { code: 'refused', message: /CPU 0.*still held/ });
    t.is(bench.standing(bench.ready), 'held');
    bench.model.put(mask, WORD, 3n);
    const { sched_class } = bench.guest.members.task_struct;
    bench.put(bench.ready, sched_class, 0x1234n);
    await t.throwsAsync(bench.release(bench.ready), { code: 'refused', message: /policy.*still held/ });
    t.is(bench.standing(bench.ready), 'held');
    bench.put(bench.ready, sched_class, bench.guest.fairSchedClass);
    t.truthy(await bench.release(bench.ready));
  });

  test(`${release}: a state takes a running thread off, and the guest's own wake-up brings it back`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct } = bench.guest.members;
    const { running } = bench;
    bench.observe(3);
    t.truthy(await bench.hold(running, 'state'));
    t.is(bench.get(running, task_struct.state), TASK_PARKED);
    t.is(bench.get(running, task_struct.thread_flags), NEED_RESCHED);
    t.is(bench.preemptCount, 0n, 'the request is where cond_resched() looks as well');
    t.is(bench.standing(running), 'leaving');
    t.is(await bench.hold(running, 'state'), null, 'asked already');

    // Before it has left, its state goes back.
    t.truthy(await bench.release(running));
    t.is(bench.get(running, task_struct.state), 0n);
    t.is(bench.standing(running), 'running');

    t.truthy(await bench.hold(running, 'state'));
    bench.put(running, task_struct.on_rq, 0n);
    t.is(bench.standing(running), 'leaving', 'in schedule()');
    t.is(await bench.release(running), null);
    bench.leave(running);
    t.is(bench.standing(running), 'held');
    t.truthy(await bench.release(running));
    t.is(bench.get(running, task_struct.state), TASK_INTERRUPTIBLE);
    t.not(bench.model.load(bench.lazyList, WORD), 0n, 'a CPU has a work that wakes it');
    t.is(bench.standing(running), 'changing');
    t.is(await bench.release(running), null, 'not before the wake-up ran');
  });

  test(`${release}: a marked thread that lost the request to reschedule is asked again in user mode`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct } = bench.guest.members;
    const { running } = bench;
    bench.observe(3);
    await bench.hold(running, 'state');
    // Preempted in the kernel and back on its CPU.
    bench.put(running, task_struct.thread_flags, 0n);
    bench.preemptCount = NO_REQUEST | 1n;
    bench.observe(0);
    t.is(await bench.hold(running, 'state'), null, 'in the kernel');
    bench.preemptCount = NO_REQUEST;
    bench.holder.observe(new Map());
    t.is(await bench.hold(running, 'park'), null, 'nobody looked where it is');
    bench.observe(3);
    const edit = await bench.hold(running, 'state');
    t.deepEqual(
      edit!.writes.map(({ what }) => what),
      ['preemption count of CPU 0 (PREEMPT_NEED_RESCHED)', 'thread_info.flags (TIF_NEED_RESCHED)'],
    );
    t.is(bench.standing(running), 'leaving');
    bench.put(running, task_struct.thread_flags, 0n);
    bench.preemptCount = NO_REQUEST;
    bench.put(running, task_struct.on_rq, 0n);
    t.is(await bench.hold(running, 'state'), null, 'in schedule()');
  });

  test(`${release}: a kernel that is not to be spliced has no splice, whatever is asked for`, async (t) => {
    t.deepEqual(new Bench(layout).holder.techniques, ['park', 'splice', 'state']);
    const bench = new Bench(layout, new Map([['splice', 'it counts them by itself']]));
    t.deepEqual(bench.holder.techniques, ['park', 'state']);
    t.is(await bench.hold(bench.ready, 'splice'), null);
    const edit = await bench.hold(bench.ready, 'splice', 'state');
    t.true(edit!.writes.some(({ what }) => /TASK_PARKED/.test(what)));
  });

  test(`${release}: nobody is spliced where threads are counted by clamp, and who was spliced before comes back`, async (t) => {
    const { task_struct } = new Bench(layout).guest.members;
    // jump_label.h: 1 is on, -1 is on its way there.
    for (const used of [1n, 0xffff_ffffn]) {
      const bench = new Bench(layout, new Map(), used);
      await t.throwsAsync(bench.hold(bench.ready, 'splice'), {
        code: 'refused',
        message: /sched_uclamp_used/,
      });
      t.is(bench.model.domain.recorder.count('write'), 0);
      t.truthy(await bench.hold(bench.ready, 'state'), 'the guest takes it out by itself');
    }
    const bench = new Bench(layout);
    t.truthy(await bench.hold(bench.ready, 'splice'));
    bench.model.put(bench.guest.uclampUsed!, INT, 1n);
    t.truthy(await bench.release(bench.ready));
    t.is(bench.get(bench.ready, task_struct.on_rq), 1n);
  });

  test(`${release}: nobody is spliced who is counted by the cache that he is to share`, async (t) => {
    const bench = new Bench(layout, new Map(), 0n, true);
    bench.put(bench.ready, llcOf(layout), 0n);
    await t.throwsAsync(bench.hold(bench.ready, 'splice'), { code: 'refused', message: /preferred_llc/ });
    t.is(bench.model.domain.recorder.count('write'), 0);
    t.truthy(await bench.hold(bench.ready, 'state'), 'the guest takes it out by itself');
    const other = new Bench(layout, new Map(), 0n, true);
    // -1: none.
    other.put(other.ready, llcOf(layout), 0xffff_ffffn);
    t.truthy(await other.hold(other.ready, 'splice'));
  });

  test(`${release}: a thread under a tracer gets no state, and one that got a tracer since is released`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct } = bench.guest.members;
    bench.observe(3);
    bench.put(bench.running, task_struct.ptrace, 1n);
    await t.throwsAsync(bench.hold(bench.running, 'state'), { code: 'refused', message: /tracer/ });
    t.is(bench.model.domain.recorder.count('write'), 0);
    await bench.hold(bench.ready, 'splice');
    bench.put(bench.ready, task_struct.ptrace, 1n);
    t.truthy(await bench.release(bench.ready));
  });

  test(`${release}: a preemption count that user mode cannot have is none`, async (t) => {
    const bench = new Bench(layout);
    bench.observe(3);
    bench.preemptCount = NO_REQUEST | 1n;
    await t.throwsAsync(bench.hold(bench.running, 'state'), {
      code: 'guest-inconsistent',
      message: /preemption count is 0x80000001/,
    });
    t.is(bench.model.domain.recorder.count('write'), 0);
  });

  test(`${release}: a ready thread gets a state and the flag alone, unless it has something to do before it looks`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct } = bench.guest.members;
    const { ready } = bench;
    bench.observe(3);
    for (const flag of ['SIGPENDING', 'UPROBE', 'PATCH_PENDING', 'NOTIFY_SIGNAL'] as const) {
      bench.put(ready, task_struct.thread_flags, TIF[flag]);
      t.is(await bench.hold(ready, 'state'), null, flag);
    }
    // glibc's threads have TIF_NOTIFY_RESUME, for their rseq, whenever they were preempted.
    bench.put(ready, task_struct.thread_flags, TIF.NOTIFY_RESUME);
    bench.put(ready, task_struct.task_works, 0x1234n);
    t.is(await bench.hold(ready, 'state'), null, 'a work');
    bench.put(ready, task_struct.task_works, 0n);
    const edit = await bench.hold(ready, 'state');
    t.deepEqual(
      edit!.writes.map(({ what }) => what),
      ['thread_info.flags (TIF_NEED_RESCHED)', 'task.__state (TASK_PARKED)'],
    );
    t.is(bench.preemptCount, NO_REQUEST, 'that is who runs there');
  });

  test(`${release}: a state that the thread overwrote is no hold`, async (t) => {
    const bench = new Bench(layout);
    bench.observe(3);
    await bench.hold(bench.running, 'state');
    bench.put(bench.running, bench.guest.members.task_struct.state, 0n);
    t.is(bench.standing(bench.running), 'running');
    t.truthy(await bench.hold(bench.running, 'state'), 'so it is asked again');
  });

  for (const verb of ['hold', 'release'] as const) {
    const make = async (): Promise<Editable> => {
      const bench = new Bench(layout);
      const { holder, model, running } = bench;
      bench.observe(3);
      if (verb === 'release') {
        await bench.hold(running, 'state');
        bench.leave(running);
      }
      return {
        domain: model.domain,
        space: model.space,
        plan: () => {
          const draft = new Draft(model.space);
          const step =
            verb === 'hold'
              ? holder.planHold(draft, running.address, ['state'])
              : holder.planRelease(draft, running.address);
          if (step === null || step === 'later') throw new Error('nothing was planned');
          return draft.edit(verb, holder.invariants(), step.outcome);
        },
      };
    };

    test(`${release}: a fault at every memory operation of a state's ${verb} leaves the old image or the new one`, (t) =>
      checkFaults(t, verb, make));

    test(`${release}: leaving out any one write of a state's ${verb} is noticed, and the guest put back`, (t) =>
      checkOmissions(t, verb, make));
  }

  for (const automatic of [false, true]) {
    const name = automatic ? 'shares of an autogroup' : 'shares of a control group';
    const make = async (): Promise<Editable> => {
      const { model, ready, shares } = withGroup(new Bench(layout), layout, automatic);
      return {
        domain: model.domain,
        space: model.space,
        plan: () => {
          const draft = new Draft(model.space);
          const outcome = [shares.plan(draft, ready.address, -5)];
          return draft.edit(name, [], outcome);
        },
      };
    };

    test(`${release}: ${name}: a fault at every memory operation leaves the old image or the new one`, (t) =>
      checkFaults(t, name, make));

    test(`${release}: ${name}: leaving out any one write is noticed, and the guest put back`, (t) =>
      checkOmissions(t, name, make));
  }

  test(`${release}: a group gets the shares of a nice value, an autogroup its nice value too`, async (t) => {
    const { task_struct, task_group, autogroup } = sharesMembers(layout);
    const bench = new Bench(layout);
    const { model, ready, rootGroup } = bench;
    const plan = async (nice: number) => {
      await using guard = await model.domain.pause.acquire();
      const draft = new Draft(model.space);
      const outcome = [bench.shares.plan(draft, ready.address, nice)];
      const edit = draft.edit('test', [], outcome);
      await commit(model.domain, model.space, guard, edit);
      return edit;
    };
    // kernel/sched/core.c, sched_prio_to_weight[]: nice -5 is its 16th, 19 its last.
    model.put(bench.prioToWeight, { offset: 4 * 15, size: 4 }, 3121n);
    model.put(bench.prioToWeight, { offset: 4 * 39, size: 4 }, 15n);
    bench.put(ready, task_struct.sched_task_group, rootGroup);
    await t.throwsAsync(plan(-5), { code: 'refused', message: /no group/ });
    const group = model.take(layout.requireStruct('task_group').size);
    const automatic = model.take(layout.requireStruct('autogroup').size);
    bench.put(ready, task_struct.sched_task_group, group);
    model.put(group, task_group.parent, rootGroup);
    model.put(group, task_group.shares, 1024n << 10n);
    const edit = await plan(-5);
    t.is(model.load(group, task_group.shares), 3121n << 10n);
    t.is(edit.writes.length, 1);
    model.put(group, task_group.autogroup!, automatic);
    await plan(19);
    t.is(model.load(group, task_group.shares), 15n << 10n);
    t.is(model.load(automatic, autogroup.nice!), 19n);
    await plan(-5);
    t.is(BigInt.asIntN(32, model.load(automatic, autogroup.nice!)), -5n);
    await t.throwsAsync(plan(20), { code: 'usage' });
    model.put(group, task_group.idle!, 1n);
    await t.throwsAsync(plan(5), { code: 'refused', message: /cpu.idle/ });
    model.put(group, task_group.idle!, 0n);
    model.put(group, task_group.shares, 0n);
    await t.throwsAsync(plan(5), { code: 'guest-inconsistent' });
    model.put(group, task_group.shares, 1024n << 10n);
    model.put(rootGroup, task_group.shares, 1024n << 12n);
    await t.throwsAsync(plan(5), { code: 'refused', message: /weights are on another scale/ });
    t.is(model.load(group, task_group.shares), 1024n << 10n);
  });
}

test('a fair server that counts on being started and stopped in turn forbids a splice', (t) => {
  const has = (...members: string[]) => ({
    has: (struct: string, path?: string) => members.includes(`${struct}.${path}`),
  });
  t.true(canSpliceFair(has()), 'up to 6.7');
  t.true(canSpliceFair(has('sched_dl_entity.server_has_tasks')), '6.8: servers, but none for fair threads');
  t.false(canSpliceFair(has('rq.fair_server', 'sched_dl_entity.server_has_tasks')), '6.12 at first');
  t.true(canSpliceFair(has('rq.fair_server')), '6.18, and stable kernels with its servers');
});

/** The ready thread in a group of its own, below the root. */
function withGroup(bench: Bench, layout: LayoutView, automatic: boolean): Bench {
  const { task_struct, task_group } = sharesMembers(layout);
  const { model } = bench;
  // kernel/sched/core.c, sched_prio_to_weight[]: nice -5 is its 16th.
  model.put(bench.prioToWeight, { offset: 4 * 15, size: 4 }, 3121n);
  const group = model.take(layout.requireStruct('task_group').size);
  bench.put(bench.ready, task_struct.sched_task_group, group);
  model.put(group, task_group.parent, bench.rootGroup);
  model.put(group, task_group.shares, 1024n << 10n);
  if (automatic) model.put(group, task_group.autogroup!, model.take(layout.requireStruct('autogroup').size));
  return bench;
}
