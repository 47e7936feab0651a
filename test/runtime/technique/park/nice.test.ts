import test from 'ava';
import fc from 'fast-check';
import { Draft } from '../../../../runtime/edit/draft.ts';
import type { Edit, Invariant } from '../../../../runtime/edit/edit.ts';
import type { Word } from '../../../../runtime/edit/member.ts';
import { commit } from '../../../../runtime/edit/transaction.ts';
import { DomschedError } from '../../../../runtime/error.ts';
import { knownKernels } from '../../../../runtime/layout/registry.ts';
import type { LayoutView } from '../../../../runtime/layout/view.ts';
import { guestVirtual } from '../../../../runtime/memory/address.ts';
import { Renice } from '../../../../runtime/technique/park/nice.ts';
import { checkFaults, checkOmissions, type Editable } from '../../edit/every-edit.ts';
import { type ModelThread, ParkModel } from './park-guest.ts';

/** kernel/sched/core.c, sched_prio_to_weight[]: nice -20 to 19. */
const WEIGHTS = [
  88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121,
  2501, 1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23,
  18, 15,
];
/** kernel/sched/sched-pelt.h, LOAD_AVG_MAX; kernel/sched/pelt.h, PELT_MIN_DIVIDER. */
const LOAD_AVG_MAX = 47742;
const MIN_DIVIDER = BigInt(LOAD_AVG_MAX - 1024);
const weightOf = (nice: number) => BigInt(WEIGHTS[nice + 20]!);

const layouts: { release: string; layout: LayoutView }[] = [];
for (const kernel of await knownKernels()) {
  if (!/^6\.(1|12)\..*-cloud-amd64$/.test(kernel.release)) continue;
  layouts.push({ release: kernel.release, layout: await kernel.load() });
}

interface Load {
  nice: number;
  /** Of the entity: up to LOAD_AVG_MAX. */
  sum: number;
  contrib: number;
  lag: number;
  /** What the others of its queue have. */
  others: number;
}

const GROUP = guestVirtual(0x180_0000n);

/** A sleeping thread with this load, in a queue that has its share of it. */
function build(layout: LayoutView, load: Load): { model: ParkModel; thread: ModelThread } {
  const model = new ParkModel(layout);
  const thread = model.addThread('sleeping');
  const { nice } = model.guest;
  const { task_struct, cfs_rq } = nice.members;
  const put = (field: Word, value: bigint) => model.put(thread.address, field, value);
  for (const [index, weight] of WEIGHTS.entries()) {
    model.put(nice.prioToWeight + BigInt(4 * index), { offset: 0, size: 4 }, BigInt(weight));
    model.put(nice.prioToWmult + BigInt(4 * index), { offset: 0, size: 4 }, 2n ** 32n / BigInt(weight));
  }
  const weight = weightOf(load.nice);
  for (const name of ['prio', 'static_prio', 'normal_prio'] as const)
    put(task_struct[name], BigInt(120 + load.nice));
  put(task_struct.sched_class, nice.fairSchedClass);
  put(task_struct.weight, weight << 10n);
  put(task_struct.inv_weight, 2n ** 32n / weight);
  put(task_struct.cfs_rq!, GROUP);
  put(task_struct.load_sum, BigInt(load.sum));
  put(task_struct.period_contrib, BigInt(load.contrib));
  const average = (weight * BigInt(load.sum)) / (MIN_DIVIDER + BigInt(load.contrib));
  put(task_struct.load_avg, average);
  if (task_struct.vlag !== undefined) put(task_struct.vlag, BigInt(load.lag));
  model.put(GROUP, cfs_rq.rq!, nice.queues[0]!.address);
  model.put(GROUP, cfs_rq.load_avg, average + BigInt(load.others));
  model.put(GROUP, cfs_rq.load_sum, weight * BigInt(load.sum) + BigInt(load.others) * BigInt(LOAD_AVG_MAX));
  return { model, thread };
}

function planned(model: ParkModel, { address }: ModelThread, nice: number): Edit | 'later' {
  const draft = new Draft(model.space);
  const outcome = new Renice(model.guest.nice).plan(draft, address, nice);
  return outcome === 'later' ? 'later' : draft.edit('renice', [], outcome);
}

async function renice(model: ParkModel, thread: ModelThread, nice: number): Promise<void> {
  await using guard = await model.domain.pause.acquire();
  const edit = planned(model, thread, nice);
  if (edit === 'later') throw new Error('later');
  await commit(model.domain, model.space, guard, edit);
}

const niceArbitrary = fc.integer({ min: -20, max: 19 });
const loadArbitrary = fc.record({
  nice: niceArbitrary,
  sum: fc.integer({ min: 0, max: LOAD_AVG_MAX }),
  contrib: fc.integer({ min: 0, max: 1023 }),
  lag: fc.integer({ min: -100_000_000, max: 100_000_000 }),
  others: fc.nat({ max: 200_000 }),
});

for (const { release, layout } of layouts) {
  test(`${release}: every nice value becomes every other, and the queue's load follows`, async (t) => {
    await fc.assert(
      fc.asyncProperty(
        loadArbitrary,
        fc.array(niceArbitrary, { minLength: 1, maxLength: 4 }),
        async (load, path) => {
          const { model, thread } = build(layout, load);
          const { task_struct, cfs_rq } = model.guest.nice.members;
          for (const nice of path) await renice(model, thread, nice);
          const nice = path.at(-1)!;
          const weight = weightOf(nice);
          const read = (field: Word) => model.load(thread.address, field);
          t.is(read(task_struct.static_prio), BigInt(120 + nice));
          t.is(read(task_struct.prio), BigInt(120 + nice));
          t.is(read(task_struct.normal_prio), BigInt(120 + nice));
          t.is(read(task_struct.weight), weight * 1024n);
          t.is(read(task_struct.inv_weight), 2n ** 32n / weight);
          const average = (weight * BigInt(load.sum)) / (MIN_DIVIDER + BigInt(load.contrib));
          t.is(read(task_struct.load_avg), average);
          t.is(model.load(GROUP, cfs_rq.load_avg), average + BigInt(load.others));
          t.is(model.load(GROUP, cfs_rq.load_sum) >= weight * BigInt(load.sum), true);
          if (task_struct.vlag === undefined) return;
          // Lag times weight is what a change of weight leaves alone, but for what each division loses.
          const lag = BigInt.asIntN(64, read(task_struct.vlag));
          const difference = lag * weight - BigInt(load.lag) * weightOf(load.nice);
          const loss = [load.nice, ...path].reduce((sum, value) => sum + weightOf(value), 0n);
          t.true(difference <= loss && difference >= -loss, `${lag} of ${load.lag}`);
        },
      ),
      { numRuns: 150 },
    );
  });

  test(`${release}: threads of one queue get their values in one edit`, async (t) => {
    const { model, thread } = build(layout, { nice: 0, sum: 30_000, contrib: 500, lag: 0, others: 2000 });
    const other = model.addThread('sleeping', thread);
    const { task_struct, cfs_rq } = model.guest.nice.members;
    const single = weightOf(0) * 30_000n;
    model.put(GROUP, cfs_rq.load_avg, 2n * (single / (MIN_DIVIDER + 500n)) + 2000n);
    model.put(GROUP, cfs_rq.load_sum, 2n * single + 2000n * BigInt(LOAD_AVG_MAX));
    await using guard = await model.domain.pause.acquire();
    const draft = new Draft(model.space);
    const surgery = new Renice(model.guest.nice);
    const outcome: Invariant[] = [];
    for (const { address } of [thread, other]) {
      const planned = surgery.plan(draft, address, 7);
      if (planned === 'later') t.fail('both are asleep');
      else outcome.push(...planned);
    }
    await commit(model.domain, model.space, guard, draft.edit('renice', [], outcome));
    const average = (weightOf(7) * 30_000n) / (MIN_DIVIDER + 500n);
    for (const { address } of [thread, other]) t.is(model.load(address, task_struct.load_avg), average);
    t.is(model.load(GROUP, cfs_rq.load_avg), 2n * average + 2000n);
  });

  const editable = async (): Promise<Editable> => {
    const { model, thread } = build(layout, {
      nice: 3,
      sum: 30_000,
      contrib: 500,
      lag: 12_345,
      others: 2000,
    });
    const plan = () => planned(model, thread, -5) as Edit;
    return { domain: model.domain, space: model.space, plan };
  };

  test(`${release}: a fault at every memory operation leaves the old image or the new one`, (t) =>
    checkFaults(t, 'renice', editable));

  test(`${release}: leaving out any one write is noticed, and the guest put back`, (t) =>
    checkOmissions(t, 'renice', editable));

  test(`${release}: what is queued waits, what nice values do not rule is refused`, async (t) => {
    const load = { nice: 0, sum: 100, contrib: 0, lag: 0, others: 0 };
    const { task_struct, rq, cfs_rq } = build(layout, load).model.guest.nice.members;
    const cases: [string, string, (model: ParkModel, thread: ModelThread) => void][] = [
      ['queued', 'later', (model, { address }) => model.put(address, task_struct.on_rq, 1n)],
      ['running', 'later', (model, { address }) => model.put(address, task_struct.on_cpu, 1n)],
      ['being woken', 'later', (model, { address }) => model.put(address, task_struct.state, 0x200n)],
      ['real-time', 'refused', (model, { address }) => model.put(address, task_struct.sched_class, 0x1000n)],
      ['SCHED_IDLE', 'refused', (model, { address }) => model.put(address, task_struct.policy, 5n)],
      ['boosted', 'refused', (model, { address }) => model.put(address, task_struct.prio, 50n)],
      [
        'another weight',
        'refused',
        (model, { address }) => model.put(address, task_struct.weight, 3n << 10n),
      ],
      ['of another queue', 'guest-inconsistent', (model) => model.put(GROUP, cfs_rq.rq!, 0x1234_0000n)],
      [
        'pi_lock held',
        'lock-held',
        (model, { address }) => model.put(address, { offset: task_struct.pi_lock.word!.offset, size: 4 }, 1n),
      ],
      [
        'rq lock held',
        'lock-held',
        (model) =>
          model.put(model.guest.nice.queues[0]!.address, { offset: rq.lock.word!.offset, size: 4 }, 1n),
      ],
    ];
    for (const [name, expected, prepare] of cases) {
      const { model, thread } = build(layout, load);
      prepare(model, thread);
      if (expected === 'later') t.is(planned(model, thread, 5), 'later', name);
      else t.throws(() => planned(model, thread, 5), { code: expected }, name);
      t.is(model.domain.recorder.count('write'), 0, name);
    }
    const { model, thread } = build(layout, load);
    const unproved = () => {
      throw new DomschedError('refused', 'PELT_MIN_DIVIDER is not proved');
    };
    const { nice: guest } = model.guest;
    const other = new Renice({ ...guest, bits: { ...guest.bits, minDivider: unproved } });
    t.throws(() => other.plan(new Draft(model.space), thread.address, 5), { code: 'refused' });
    for (const nice of [-21, 20, 0.5]) t.throws(() => planned(model, thread, nice), { code: 'usage' });
  });
}
