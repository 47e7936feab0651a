/** Kernels without control groups: nothing can be parked, and splice, state and nice stand by themselves. */
import test from 'ava';
import { Draft } from '../../../runtime/edit/draft.ts';
import { commit } from '../../../runtime/edit/transaction.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import type { LayoutView } from '../../../runtime/layout/view.ts';
import { advance } from '../../../runtime/memory/address.ts';
import { waysOfLayout } from '../../../runtime/surgeon/ways.ts';
import { niceMembers } from '../../../runtime/technique/park/nice.ts';
import { checkFaults, checkOmissions, type Editable } from '../edit/every-edit.ts';
import { TASK_INTERRUPTIBLE, TASK_PARKED } from '../technique/bits.ts';
import { withoutGroups } from '../technique/fair/without-groups.ts';
import { Bench, ELSEWHERE, INT, WORD } from './fair-bench.ts';

const layouts: { release: string; layout: LayoutView }[] = [];
for (const { release } of await knownKernels()) {
  // CFS, and EEVDF.
  if (/^6\.(1\.0-57|12)\b.*-cloud-amd64$/.test(release))
    layouts.push({ release, layout: await withoutGroups(release) });
}

test('CFS and EEVDF without groups are tried', (t) => {
  const isEevdf = new Set(layouts.map(({ layout }) => layout.has('sched_entity', 'deadline')));
  t.deepEqual([...isEevdf].sort(), [false, true]);
});

for (const { release, layout } of layouts) {
  test(`${release}: its layout says what can be done, and why nothing is parked`, (t) => {
    const { techniques, refused } = waysOfLayout(layout);
    t.deepEqual(techniques, ['splice', 'state']);
    t.deepEqual(Object.keys(refused), ['park']);
    t.regex(refused.park ?? '', /no task_struct\.frozen.*CONFIG_CGROUPS/);
  });

  test(`${release}: a ready thread is spliced and comes back, a running one is held by state and is woken`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct, rq } = bench.guest.members;
    const { ready, running, holder } = bench;
    t.deepEqual(holder.techniques, ['splice', 'state']);
    t.deepEqual(holder.automatic, ['splice', 'state'], 'there is nothing better');
    t.is(holder.sharesRefused, 'it has no groups');
    bench.observe(3);

    t.is(await bench.hold(ready, 'park'), null, 'asked for all the same');
    t.truthy(await bench.hold(ready, ...holder.automatic));
    t.is(bench.standing(ready), 'held');
    t.is(bench.get(ready, task_struct.state), 0n);
    t.is(bench.model.load(bench.guest.queues[0]!.address, rq.nr_running), 1n);
    t.truthy(await bench.release(ready));
    t.is(bench.standing(ready), 'ready');
    t.is(bench.model.load(bench.guest.queues[0]!.address, rq.nr_running), 2n);

    t.truthy(await bench.hold(running, ...holder.automatic));
    t.is(bench.get(running, task_struct.state), TASK_PARKED);
    t.is(bench.standing(running), 'leaving');
    bench.leave(running);
    t.is(bench.standing(running), 'held');
    t.truthy(await bench.release(running));
    t.is(bench.get(running, task_struct.state), TASK_INTERRUPTIBLE);
    t.not(bench.model.load(bench.lazyList, WORD), 0n, 'a CPU has a work that wakes it');
    t.is(bench.standing(running), 'changing');
  });

  test(`${release}: what sleeps, is in the kernel, exits or is a kernel thread is left alone`, async (t) => {
    const bench = new Bench(layout);
    const { task_struct } = bench.guest.members;
    const { ready, running, holder } = bench;
    bench.observe(0);
    t.is(await bench.hold(running, ...holder.automatic), null, 'in the kernel');
    bench.stack(ready.address, { 17: ELSEWHERE });
    t.is(await bench.hold(ready, ...holder.automatic), null, 'preempted in the kernel');
    bench.observe(3);
    bench.put(running, task_struct.state, 1n);
    bench.leave(running);
    t.is(bench.standing(running), 'sleeping');
    t.is(await bench.hold(running, ...holder.automatic), null, 'asleep');
    t.is(await bench.release(running), null, 'never held');
    t.is(bench.model.domain.recorder.count('write'), 0);
  });

  for (const verb of ['splice', 'its release', 'state', 'the release of a state'] as const) {
    const make = async (): Promise<Editable> => {
      const bench = new Bench(layout);
      const { holder, model } = bench;
      bench.observe(3);
      const thread = verb.includes('state') ? bench.running : bench.ready;
      if (verb === 'its release') await bench.hold(thread, 'splice');
      if (verb === 'the release of a state') {
        await bench.hold(thread, 'state');
        bench.leave(thread);
      }
      return {
        domain: model.domain,
        space: model.space,
        plan: () => {
          const draft = new Draft(model.space);
          const step = verb.includes('release')
            ? holder.planRelease(draft, thread.address)
            : holder.planHold(draft, thread.address, [verb === 'state' ? 'state' : 'splice']);
          if (step === null || step === 'later') throw new Error('nothing was planned');
          return draft.edit(verb, [...holder.invariants(), ...(step.invariants ?? [])], step.outcome);
        },
      };
    };

    test(`${release}: a fault at every memory operation of ${verb} leaves the old image or the new one`, (t) =>
      checkFaults(t, verb, make));

    test(`${release}: leaving out any one write of ${verb} is noticed, and the guest put back`, (t) =>
      checkOmissions(t, verb, make));
  }

  test(`${release}: a thread that is off its queue gets another nice value, and its CPU's queue the load`, async (t) => {
    const bench = new Bench(layout);
    const { model, holder, ready } = bench;
    const { task_struct, cfs_rq, rq } = niceMembers(layout);
    t.is(task_struct.cfs_rq, undefined);
    // kernel/sched/core.c, sched_prio_to_weight[] and sched_prio_to_wmult[]: nice 0 and 5.
    for (const [index, weight, inverse] of [
      [20, 1024n, 4194304n],
      [25, 335n, 12820798n],
    ] as const) {
      model.put(advance(bench.prioToWeight, 4 * index), INT, weight);
      model.put(advance(bench.prioToWmult, 4 * index), INT, inverse);
    }
    for (const name of ['prio', 'static_prio', 'normal_prio'] as const)
      bench.put(ready, task_struct[name], 120n);
    bench.put(ready, task_struct.inv_weight, 4194304n);
    const queue = advance(bench.guest.queues[0]!.address, rq.cfs);
    model.put(queue, cfs_rq.load_avg, 1_000n);
    model.put(queue, cfs_rq.load_sum, 100_000_000n);
    t.is(holder.planRenice(new Draft(model.space), ready.address, 5), 'later', 'it is queued');

    t.truthy(await bench.hold(ready, 'splice'));
    const oldAverage = bench.get(ready, task_struct.load_avg);
    await using guard = await model.domain.pause.acquire();
    const draft = new Draft(model.space);
    const outcome = holder.planRenice(draft, ready.address, 5);
    if (outcome === 'later') return t.fail('not held');
    await commit(model.domain, model.space, guard, draft.edit('nice', [], outcome));
    t.is(bench.get(ready, task_struct.static_prio), 125n);
    t.is(bench.get(ready, task_struct.weight), 335n << 10n);
    // The queue of the CPU has the new average of the thread in place of the old one.
    const newAverage = bench.get(ready, task_struct.load_avg);
    t.not(newAverage, oldAverage);
    t.is(model.load(queue, cfs_rq.load_avg), 1_000n - oldAverage + newAverage);
  });
}
