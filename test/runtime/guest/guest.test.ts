import test from 'ava';
import { Constants } from '../../../runtime/code/prove.ts';
import { DomschedError } from '../../../runtime/error.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { vcpusByCpu } from '../../../runtime/guest/vcpus.ts';
import type { FrameNumber } from '../../../runtime/hypervisor/frame.ts';
import type { Domain } from '../../../runtime/hypervisor/types.ts';
import type { AnyLayout, MemberLayout, StructLayout } from '../../../runtime/layout/types.ts';
import { LayoutView } from '../../../runtime/layout/view.ts';
import { guestVirtual } from '../../../runtime/memory/address.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { fairQueuesRefusal } from '../../../runtime/technique/fair/members.ts';
import { narrowedLayout } from './narrowed.ts';
import { proved } from './proved.ts';
import {
  CFS_KERNEL,
  defaultTasks,
  EEVDF_KERNEL,
  knownKernel,
  O1_KERNEL,
  SYNTHETIC_KERNELS,
  SyntheticGuest,
  type SyntheticTask,
} from './synthetic.ts';

const PROVED = proved();

const EXPECTED_STATES: Record<SyntheticTask['state'], string> = {
  running: 'running',
  ready: 'ready',
  sleeping: 'sleeping',
  zombie: 'zombie',
  stopped: 'stopped',
};

for (const kernel of SYNTHETIC_KERNELS) {
  const known = [knownKernel(kernel)];

  test(`${kernel}: every process and thread, every queue`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, known);
    t.is(guest.kernel.slide, synthetic.slide);
    t.is(guest.kernel.physBase, synthetic.physBase);
    t.true(guest.facts.length > 10);
    for (const fact of guest.facts) t.true(fact.holds, fact.name);

    const { processes, runQueues } = guest.snapshot({ threads: true });
    const model = defaultTasks();
    t.is(processes.length, model.length);
    for (const task of model) {
      const found = processes.find(({ pid }) => pid === task.pid)!;
      t.is(found.comm, task.comm);
      t.is(found.tgid, task.tgid ?? task.pid);
      t.is(found.ppid, task.ppid ?? 0);
      t.is(found.cpu, task.cpu);
      t.is(found.nice, task.nice ?? 0);
      t.is(found.state, EXPECTED_STATES[task.state] as never, task.comm);
      t.is(found.kernelThread, task.kernel ?? false, task.comm);
      t.is(found.threads, task.tgid === 40 || task.pid === 40 ? 3 : 1);
      t.is(found.address, synthetic.tasks.get(task.pid) as never);
    }
    for (const [cpu, queue] of runQueues.entries()) {
      const here = model.filter((task) => task.cpu === cpu && ['running', 'ready'].includes(task.state));
      t.is(queue.nrRunning, here.length);
      t.deepEqual(queue.tasks.map(({ pid }) => pid).sort(), here.map(({ pid }) => pid).sort());
      t.is(queue.address, synthetic.queues[cpu] as never);
      t.false(queue.lockHeld);
    }
    t.is(guest.snapshot().processes.length, model.length - 2);
  });

  test(`${kernel}: a warm look is one scatter read, and sees what changed`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, known);
    guest.snapshot();
    guest.watch();
    synthetic.domain.recorder.recording = true;
    synthetic.domain.recorder.calls.length = 0;
    guest.watch();
    const reads = synthetic.domain.recorder.count('read');
    t.true(reads < 120, `${reads} ranges`);
    synthetic.put(synthetic.tasks.get(12)!, 'task_struct', 'static_prio', 125);
    t.is(guest.snapshot().processes.find(({ pid }) => pid === 12)?.nice, 5);
  });

  test(`${kernel}: how far it has come: by switches, by ticks, and whether it idles`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, known);
    const begin = guest.advance();
    t.deepEqual(guest.advance(), begin);
    const queue = synthetic.queues[0]!;
    synthetic.put(queue, 'rq', 'nr_switches', 1_000_000n);
    const switched = guest.advance();
    t.not(switched.count, begin.count);
    const tick = synthetic.layout.has('rq', 'clock') ? 'clock' : 'timestamp_last_tick';
    synthetic.put(queue, 'rq', tick, 123_456_789n);
    t.not(guest.advance().count, switched.count);
    t.false(switched.idle);
    for (const address of synthetic.queues) {
      const { offset } = synthetic.layout.field('rq', 'idle');
      const idle = guest.space.readU64(guestVirtual(address + BigInt(offset)));
      synthetic.put(address, 'rq', 'curr', idle);
    }
    t.true(guest.advance().idle);
  });

  test(`${kernel}: its vCPUs are its CPUs by their registers, whatever their numbers`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, known);
    const bases = guest.cpus.map(({ area, pda }) => pda ?? area);
    t.true(bases.length > 1);
    const [model] = await synthetic.domain.registers.read();
    const shown = bases.toReversed().map((gsBase, vcpu) => ({ ...model!, vcpu, cpl: 0, gsBase }));
    const found = [...vcpusByCpu(guest, shown)].map(([cpu, { vcpu }]) => [cpu, vcpu]);
    t.deepEqual(
      found.sort(([a], [b]) => a! - b!),
      guest.cpus.map(({ cpu }, index) => [cpu, bases.length - 1 - index]),
    );
  });

  test(`${kernel}: a layout that is not the guest's is disproved, naming the fact`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    synthetic.put(synthetic.initTask, 'task_struct', 'pid', 7);
    const error = await t.throwsAsync(Guest.attach(synthetic.domain, known), { instanceOf: DomschedError });
    t.is(error.code, 'layout-disproved');
    t.is(error.exitCode, 3);
    t.is(error.details.fact, 'init_task is process 0');
    t.is(synthetic.domain.recorder.count('write'), 0);
  });

  test(`${kernel}: a count of references that a layout takes for the tracer's flags disproves it`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    // include/linux/init_task.h: two references.
    synthetic.put(
      synthetic.initTask,
      'task_struct',
      'ptrace',
      synthetic.layout.field('task_struct', 'ptrace').size === 8 ? 2n : 2,
    );
    const error = await t.throwsAsync(Guest.attach(synthetic.domain, known), { instanceOf: DomschedError });
    t.is(error.code, 'layout-disproved');
    t.is(error.details.fact, 'init_task has no tracer');
  });

  test(`${kernel}: a process that begins while the layout is proved does not disprove it`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const { offset } = synthetic.layout.field('task_struct', 'tasks.next');
    const links = Buffer.from(synthetic.image.load(synthetic.physical(synthetic.initTask) + offset, 16));
    const [first, last] = [links.readBigUInt64LE(0), links.readBigUInt64LE(8)];
    const set = (previous: bigint) =>
      synthetic.put(synthetic.initTask, 'task_struct', 'tasks.prev', previous);
    set(first);
    synthetic.domain.recorder.onCall(({ kind }) => {
      if (kind === 'stop') set(last);
    });
    const guest = await Guest.attach(synthetic.domain, known);
    t.true(guest.facts.every(({ holds }) => holds));
    guest.detach();
    synthetic.domain.recorder.reset();
    set(first);
    await t.throwsAsync(Guest.attach(synthetic.domain, known), {
      code: 'layout-disproved',
      message: /init_task\.tasks links both ways/,
    });
    t.is(synthetic.domain.recorder.count('write'), 0);
  });

  test(`${kernel}: a domain that was reset is not taken for the old one`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, known);
    synthetic.domain.reset();
    t.is(t.throws(() => guest.snapshot(), { instanceOf: DomschedError }).code, 'kernel-unidentified');
    guest.detach();
    // Another kernel in the same domain: attaching anew finds out.
    const other = SYNTHETIC_KERNELS.find((name) => name !== kernel)!;
    const next = await SyntheticGuest.make({ kernel: other });
    synthetic.domain.reset(next.image);
    synthetic.domain.vcpus = next.domain.vcpus;
    const again = await Guest.attach(synthetic.domain, SYNTHETIC_KERNELS.map(knownKernel));
    t.is(again.kernel.release, knownKernel(other).release);
  });

  test(`${kernel}: a kernel that was replaced without a reset is noticed at the first contradiction`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, known);
    for (const rq of synthetic.queues) synthetic.put(rq, 'rq', 'curr', 0n);
    synthetic.text(synthetic.symbol('linux_banner'), 'Linux version 9.9.9 (who@where) #1\n');
    t.is(t.throws(() => guest.snapshot(), { instanceOf: DomschedError }).code, 'kernel-unidentified');
  });

  test(`${kernel}: an edit under way is read again, and named when it does not end`, async (t) => {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, known);
    const rq = synthetic.queues[0]!;
    const nr = synthetic.layout.field('rq', 'nr_running');
    const wide = nr.size === 8;
    const right = defaultTasks().filter(
      ({ cpu, state }) => cpu === 0 && ['running', 'ready'].includes(state),
    ).length;
    const set = (n: number) => synthetic.put(rq, 'rq', 'nr_running', wide ? BigInt(n) : n);
    set(right + 1);
    let reads = 0;
    synthetic.domain.recorder.onCall(({ kind }) => {
      // The edit ends while the third look is under way.
      if (kind === 'read' && ++reads === 60) set(right);
    });
    t.true(guest.watch() > 0);
    synthetic.domain.recorder.reset();
    set(right + 1);
    const error = t.throws(() => guest.watch(), { instanceOf: DomschedError });
    t.is(error.code, 'guest-inconsistent');
    t.regex(error.message, /counts \d+ .*links \d+|arrays count/);
  });
}

test('processes are shown even when the run queues stay inconsistent', async (t) => {
  for (const kernel of SYNTHETIC_KERNELS) {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    const wide = synthetic.layout.field('rq', 'nr_running').size === 8;
    synthetic.put(synthetic.queues[1]!, 'rq', 'nr_running', wide ? 99n : 99);
    const limitMs = 5;
    await t.throwsAsync(guest.take({ limitMs }), { code: 'guest-inconsistent' });
    const { processes, runQueues, exact } = await guest.take({ limitMs, withoutQueues: true });
    t.is(processes.length, 10);
    t.is(processes.find(({ pid }) => pid === 40)?.state, 'running');
    t.is(processes.find(({ pid }) => pid === 20)?.state, 'ready');
    t.deepEqual(runQueues, []);
    t.false(exact);
  }
});

test('an image that was taken while the guest ran: processes, and what contradicts them', async (t) => {
  for (const kernel of SYNTHETIC_KERNELS) {
    const known = [knownKernel(kernel)];
    const synthetic = await SyntheticGuest.make({ kernel });
    t.is((await Guest.attach(image(synthetic), known)).torn, undefined);
    const wide = synthetic.layout.field('rq', 'nr_running').size === 8;
    synthetic.put(synthetic.queues[1]!, 'rq', 'nr_running', wide ? 99n : 99);
    const guest = await Guest.attach(image(synthetic), known);
    t.regex(guest.torn!, /run queue of CPU 1: .*99/);
    t.is(
      guest.facts.find(({ name }) => name === 'processes are consistent')?.found,
      `${defaultTasks().length} tasks`,
    );
    const { processes, runQueues } = await guest.take({ withoutQueues: true });
    t.is(processes.length, 10);
    t.deepEqual(runQueues, []);
    await t.throwsAsync(guest.take(), { code: 'guest-inconsistent' });
    // Nor is an image believed whose processes contradict each other.
    synthetic.put(synthetic.tasks.get(20)!, 'task_struct', 'pid', 10);
    await t.throwsAsync(Guest.attach(image(synthetic), known), {
      code: 'layout-disproved',
      message: /the guest ran while the image was taken/,
    });
  }
});

/** As a dump has it: nobody can pause it. */
function image({ domain }: SyntheticGuest): Domain<FrameNumber> {
  return new Proxy(domain, {
    get(target, key) {
      if (key === 'pause' || key === 'writeFrames') return undefined;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

test('run queues that never hold what they count: processes are listed, and nothing edits a queue', async (t) => {
  for (const kernel of SYNTHETIC_KERNELS) {
    const synthetic = await SyntheticGuest.make({ kernel });
    const wide = synthetic.layout.field('rq', 'nr_running').size === 8;
    synthetic.put(synthetic.queues[1]!, 'rq', 'nr_running', wide ? 99n : 99);
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    t.is(guest.torn, undefined);
    t.regex(guest.queuesUnknown!, /run queue of CPU 1: .*99/);
    t.true(guest.facts.every(({ holds }) => holds));
    const { processes, runQueues } = await guest.take();
    t.is(processes.length, 10);
    t.is(processes.find(({ pid }) => pid === 40)?.state, 'running');
    t.deepEqual(runQueues, []);
    const paused = await guest.take({ pause: true });
    t.true(paused.exact);
    if (kernel === O1_KERNEL) {
      const error = t.throws(() => holderFor(guest), { instanceOf: DomschedError, code: 'refused' });
      t.true(error.message.includes(guest.queuesUnknown!));
    } else {
      t.is(fairQueuesRefusal(guest.layout), null);
      const { techniques, refused } = holderFor(guest, PROVED);
      t.deepEqual(techniques, ['park']);
      t.deepEqual([...refused!.keys()].sort(), ['splice', 'state']);
      for (const reason of refused!.values()) t.true(reason.includes(guest.queuesUnknown!), reason);
    }
    t.is(synthetic.domain.recorder.count('write'), 0);
    guest.detach();
    // What each CPU runs has to be a task all the same.
    synthetic.put(synthetic.queues[0]!, 'rq', 'curr', synthetic.alloc(8192));
    const error = await t.throwsAsync(Guest.attach(synthetic.domain, [knownKernel(kernel)]), {
      instanceOf: DomschedError,
    });
    t.is(error.code, 'layout-disproved');
  }
});

test('a way to hold that a kernel has not says what is missing; groups need nothing of the queues', async (t) => {
  const kernel = EEVDF_KERNEL;
  const { layout: whole } = (await import(`../../../generated/${kernel}/index.ts`)) as { layout: AnyLayout };
  const { nr_running, ...rq } = whole.rq as StructLayout & { nr_running: MemberLayout };
  const { sched_task_group: _, ...task } = whole.task_struct as StructLayout & { sched_task_group: unknown };
  const without = (name: string) =>
    Object.fromEntries(Object.entries(whole.$symbols).filter(([symbol]) => symbol !== name));
  const both = ['splice', 'state'] as const;
  const cases: readonly (readonly [
    reason: RegExp,
    change: object,
    refused: readonly ('splice' | 'state')[],
    hasShares: boolean,
    constants: Constants,
  ])[] = [
    [
      /rq\.uclamp.*sched_uclamp_used/,
      { rq: { ...rq, nr_running, uclamp: nr_running } },
      ['splice'],
      true,
      PROVED,
    ],
    [/rq\.donor/, { rq: { ...rq, nr_running, donor: nr_running } }, both, true, PROVED],
    [/TICK_NSEC is not proved/, { $symbols: without('tick_nsec') }, ['splice'], true, proved('TICK_NSEC')],
    [/TASK_PARKED is not proved/, {}, ['state'], true, proved('TASK_PARKED')],
    [
      /way to user mode is not proved: schedule/,
      {},
      both,
      true,
      new Constants(PROVED.proofs, 'x', 'schedule() is odd'),
    ],
    [/no task_struct\.sched_task_group/, { task_struct: task }, both, false, PROVED],
  ];
  for (const [reason, change, refused, hasShares, constants] of cases) {
    const layout = new LayoutView({ ...whole, ...change } as AnyLayout);
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [
      { ...knownKernel(kernel), load: async () => layout },
    ]);
    const holder = holderFor(guest, constants);
    t.deepEqual(holder.techniques, ['park', ...both.filter((technique) => !refused.includes(technique))]);
    t.is(holder.shares !== undefined, hasShares);
    const surgeon = new Surgeon(synthetic.domain as never, guest, holder);
    const { processes } = guest.processesAlone();
    const key = processes.find(({ pid }) => pid === 40)!;
    for (const technique of refused) {
      const error = await t.throwsAsync(surgeon.hold(key, { techniques: [technique] }), { code: 'refused' });
      t.regex(
        error!.message,
        new RegExp(`no ${technique}, but park.*: ${technique} is refused since .*${reason.source}`),
      );
    }
    if (hasShares) continue;
    const error = await t.throwsAsync(surgeon.reniceGroup(key, 5), { code: 'refused' });
    t.regex(error!.message, reason);
  }
});

test('numbers of the code that other facts contradict are refused', async (t) => {
  const synthetic = await SyntheticGuest.make({ kernel: EEVDF_KERNEL });
  const guest = await Guest.attach(synthetic.domain, [knownKernel(EEVDF_KERNEL)]);
  const holder = (name: string, value: bigint) =>
    holderFor(
      guest,
      new Constants(
        PROVED.proofs.map((proof) => (proof.name === name ? { ...proof, value, functions: [] } : proof)),
        'synthetic',
        PROVED.wayOut,
      ),
    );
  const unusable = [
    ['process_timer.task', /process_timeout\(\) wakes the task at byte 48/],
    ['PF_EXITING', /another PF_EXITING .*0x30/],
    ['PF_KTHREAD', /another PF_KTHREAD/],
    ['PR_IO_FLUSHER', /another PR_IO_FLUSHER/],
  ] as const;
  for (const [name, reason] of unusable) {
    const error = t.throws(() => holder(name, 48n), { instanceOf: DomschedError, code: 'refused' });
    t.regex(error.message, reason);
  }
  const why = (given = holder('none', 0n)) => given.refused?.get('splice') ?? 'it is not refused';
  t.regex(why(), /not refused/);
  t.regex(why(holder('PELT_MIN_DIVIDER', 46_719n)), /PELT_MIN_DIVIDER is 46719/);
  const spoilt = (address: bigint, reason: RegExp) => {
    const old = synthetic.image.load(synthetic.physical(address), 8);
    synthetic.word(address, 5n);
    t.regex(why(), reason);
    synthetic.image.store(synthetic.physical(address), old);
    t.regex(why(), /not refused/);
  };
  spoilt(synthetic.symbol('runnable_avg_yN_inv') + 64n, /fade at another rate/);
  spoilt(synthetic.symbol('sched_prio_to_weight') + 80n, /nice 0 is 5 in its table/);
  const shares = synthetic.symbol('root_task_group') + synthetic.offset('task_group', 'shares');
  spoilt(shares, /root group weighs 5$/);
  guest.detach();
});

test('queues of a new shape are known as such by their members', async (t) => {
  const kernel = EEVDF_KERNEL;
  const { layout: plain } = await SyntheticGuest.make({ kernel });
  const { offset, size, type, kind } = plain.field('cfs_rq', 'curr');
  // The guest's own scheduler takes a thread out whose state says so, but only where its queues are CFS's or EEVDF's.
  const shapes: readonly (readonly [RegExp, string, Record<string, MemberLayout>, readonly string[]])[] = [
    [/h_curr/, 'none', { h_curr: { offset, size, type, kind } }, ['park', 'state']],
    [/tasks_timeline/, 'tasks_timeline', {}, ['park']],
    [/nr_queued/, 'nr_running', {}, ['park']],
  ];
  for (const [reason, gone, more, ways] of shapes) {
    const changed = (struct: string, name: string, member: MemberLayout): MemberLayout | undefined =>
      struct === 'cfs_rq' && name === gone ? { ...member, type: 'gone' } : undefined;
    const { layout } = await narrowedLayout(
      kernel,
      changed,
      { cfs_rq: more },
      ({ type: found }) => found !== 'gone',
    );
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [
      { ...knownKernel(kernel), load: async () => layout },
    ]);
    t.regex(guest.queuesUnknown!, reason);
    const { processes, runQueues } = await guest.take();
    t.is(processes.length, 10);
    t.deepEqual(runQueues, []);
    const { techniques, refused } = holderFor(guest, PROVED);
    t.deepEqual(techniques, ways);
    t.truthy(refused?.get('splice'));
  }
});

test('tasks of a scheduler that was loaded are counted', async (t) => {
  const kernel = EEVDF_KERNEL;
  // In the place of a word that nobody reads.
  const { offset, type } = (await knownKernel(kernel).load()).field('rq', 'calc_load_update');
  const count: MemberLayout = { offset, size: 4, type, kind: 'int', signed: false };
  const { layout } = await narrowedLayout(kernel, () => undefined, {
    rq: { scx: { offset, size: 8, type: 'struct scx_rq', kind: 'struct', members: { nr_running: count } } },
  });
  const synthetic = await SyntheticGuest.make({ kernel, layout });
  const guest = await Guest.attach(synthetic.domain, [{ ...knownKernel(kernel), load: async () => layout }]);
  const [before] = guest.runQueues().runQueues;
  const [rq] = synthetic.queues;
  synthetic.put(rq!, 'rq', 'scx.nr_running', 2);
  t.throws(() => guest.runQueues(), { code: 'guest-inconsistent' });
  synthetic.put(rq!, 'rq', 'nr_running', before!.nrRunning + 2);
  const [after] = guest.runQueues().runQueues;
  t.is(after!.nrRunning, before!.nrRunning + 2);
  t.deepEqual(after!.tasks, before!.tasks);
});

test('numbers of processes that no kernel gives are not believed', async (t) => {
  for (const kernel of SYNTHETIC_KERNELS) {
    const synthetic = await SyntheticGuest.make({ kernel });
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    const task = synthetic.tasks.get(12)!;
    for (const pid of [4_194_305, -1]) {
      synthetic.put(task, 'task_struct', 'pid', pid);
      t.throws(() => guest.snapshot(), { code: 'guest-inconsistent', message: /no kernel gives/ });
    }
    synthetic.put(task, 'task_struct', 'pid', 4_194_304);
    t.is(guest.snapshot().processes.length, 10);
  }
});

test('task groups: tasks are found below their group', async (t) => {
  for (const kernel of [CFS_KERNEL, EEVDF_KERNEL]) {
    const tasks = defaultTasks().map((task) => (task.pid >= 10 ? { ...task, group: true } : task));
    const synthetic = await SyntheticGuest.make({ kernel, tasks });
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    const { runQueues } = guest.runQueues();
    t.deepEqual(runQueues[0]!.tasks.map(({ pid }) => pid).sort(), [10, 11, 12, 13]);
    t.deepEqual(runQueues[1]!.tasks.map(({ pid }) => pid).sort(), [20, 40, 41]);
  }
});

test('real-time tasks come first, by priority', async (t) => {
  const kernel = CFS_KERNEL;
  const extra: SyntheticTask[] = [
    { pid: 50, comm: 'rt-low', cpu: 0, state: 'ready', ppid: 1, realtime: 60 },
    { pid: 51, comm: 'rt-high', cpu: 0, state: 'ready', ppid: 1, realtime: 9 },
    { pid: 52, comm: 'rt-high', cpu: 0, state: 'ready', ppid: 1, realtime: 9 },
  ];
  const synthetic = await SyntheticGuest.make({ kernel, tasks: [...defaultTasks(), ...extra] });
  const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
  const [first] = guest.runQueues().runQueues;
  t.deepEqual(
    first!.tasks.slice(0, 3).map(({ pid, class: kind, key }) => [pid, kind, key]),
    [
      [51, 'realtime', 9],
      [52, 'realtime', 9],
      [50, 'realtime', 60],
    ],
  );
});

test('five-level paging, other slides and places in memory', async (t) => {
  const kernel = CFS_KERNEL;
  for (const [slide, load] of [
    [0n, 0x100_0000],
    [0x20_0000n, 0x1000_0000],
    [0x3000_0000n, 0x800_0000],
  ] as const) {
    const synthetic = await SyntheticGuest.make({ kernel, slide, load, levels: 5 });
    const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
    t.is(guest.kernel.slide, slide);
    t.is(guest.kernel.physBase, synthetic.physBase);
    t.is(guest.snapshot().processes.length, 10);
  }
});

test('CPU time: measured time, split as the ticks were seen', async (t) => {
  const kernel = CFS_KERNEL;
  const tasks: SyntheticTask[] = [
    ...defaultTasks(),
    // 3 of 4 ticks in user mode, 8 s measured.
    { pid: 60, comm: 'timed', cpu: 0, state: 'sleeping', utime: 3e9, stime: 1e9, runtime: 8e9 },
    { pid: 61, comm: 'timed', cpu: 0, state: 'sleeping', tgid: 60, utime: 0, stime: 1e9, runtime: 2e9 },
  ];
  const synthetic = await SyntheticGuest.make({ kernel, tasks });
  const guest = await Guest.attach(synthetic.domain, [knownKernel(kernel)]);
  const whole = guest.snapshot().processes.find(({ pid }) => pid === 60)!;
  t.like(whole, { utimeNs: 6e9, stimeNs: 4e9, runtimeNs: 10e9, threads: 2 });
  const single = guest.snapshot({ threads: true }).processes.find(({ pid }) => pid === 61)!;
  t.like(single, { utimeNs: 0, stimeNs: 2e9, tgid: 60 });
});
