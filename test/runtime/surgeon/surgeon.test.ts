import test from 'ava';
import type { Draft } from '../../../runtime/edit/draft.ts';
import type { MemoryView } from '../../../runtime/edit/memory-view.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { advance, type GuestVirtual } from '../../../runtime/memory/address.ts';
import type { Holder } from '../../../runtime/surgeon/holder.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { THREADS_PER_PAUSE } from '../../../runtime/surgeon/thread-turns.ts';
import { fakeGuest } from '../daemon/fake-daemon.ts';
import {
  CFS_KERNEL,
  knownKernel,
  O1_KERNEL,
  SyntheticGuest,
  type SyntheticTask,
} from '../guest/synthetic.ts';

/** Finds nothing to do, ever. */
const never: Holder = {
  techniques: ['park'],
  automatic: ['park'],
  renicesHeld: false,
  invariants: () => [],
  checkLocks: () => undefined,
  standing: () => 'sleeping',
  planHold: () => null,
  planRelease: () => null,
  planRenice: () => 'later',
};

test('what this kernel has no way for is refused with the reason: a technique, and the nice value of a group', async (t) => {
  const { domain } = await fakeGuest('one', { comm: 'backup', state: 'ready' });
  const guest = await Guest.attach(domain, [knownKernel(O1_KERNEL)]);
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'backup')!;
  const refuses = async (holder: Holder, message: RegExp, group: boolean) => {
    const surgeon = new Surgeon(domain, guest, holder);
    const asked = group
      ? surgeon.reniceGroup(process, 5)
      : surgeon.hold(process, { techniques: ['state', 'splice'] });
    await t.throwsAsync(asked, { code: 'refused', message });
  };
  const refused: Holder = {
    ...never,
    refused: new Map([['state', 'its queue is new']]),
    sharesRefused: 'its groups are of another shape',
  };
  await refuses(
    refused,
    /no state, splice, but park: state is refused since its queue is new; nothing was/,
    false,
  );
  await refuses(never, /has no state, splice, but park; nothing was changed/, false);
  await refuses(refused, /cannot be reniced: its groups are of another shape; .* without --group/, true);
  await refuses(never, /cannot be reniced: its scheduler knows none; .* without --group/, true);
  t.is(domain.recorder.count('write'), 0);
});

test('what a guest was asked for is waited for without a pause, and what nobody asked it for with one', async (t) => {
  const { domain } = await fakeGuest('one', { comm: 'backup', state: 'ready' });
  const guest = await Guest.attach(domain, [knownKernel(O1_KERNEL)]);
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'backup')!;
  const looks = { paused: 0, running: 0 };
  const waiting = (standing: 'leaving' | 'ready', enough: () => boolean): Holder => ({
    ...never,
    standing: () => {
      looks[domain.pause.depth === 0 ? 'running' : 'paused'] += 1;
      return enough() ? 'held' : standing;
    },
  });
  const leaving = waiting('leaving', () => looks.running >= 4);
  // On a busy host there may be no more than one look before the next pause.
  t.true((await new Surgeon(domain, guest, leaving).hold(process, { limitMs: 60_000 })).attempts <= 5);
  looks.running = 0;
  looks.paused = 0;
  const ready = waiting('ready', () => looks.paused >= 8);
  t.true((await new Surgeon(domain, guest, ready).hold(process, { limitMs: 60_000 })).attempts > 2);
  t.true(looks.running <= 2, 'the plan before the first pause');
});

test('a hold that was prepared is planned in its pause alone, and preparing pauses nothing', async (t) => {
  const { domain } = await fakeGuest('one', { comm: 'backup', state: 'ready' });
  const guest = await Guest.attach(domain, [knownKernel(O1_KERNEL)]);
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'backup')!;
  const running: boolean[] = [];
  const counting: Holder = {
    ...never,
    planHold: () => {
      running.push(domain.pause.depth === 0);
      return null;
    },
  };
  const hold = (surgeon: Surgeon) =>
    t.throwsAsync(surgeon.hold(process, { limitMs: 1 }), { code: 'timeout' });
  await hold(new Surgeon(domain, guest, counting));
  t.is(running.filter((each) => each).length, 1, 'unprepared, it is planned once before');
  running.length = 0;
  const surgeon = new Surgeon(domain, guest, counting);
  t.true(surgeon.prepare(process));
  t.false(surgeon.prepare(process), 'it was just now');
  t.deepEqual(running, [true]);
  await hold(surgeon);
  t.deepEqual(
    running.slice(1).filter((each) => each),
    [],
  );
  t.true(running.length > 1);
  t.is(domain.recorder.count('write'), 0);
});

test('a guest that has halted is not called asleep', async (t) => {
  const { domain } = await fakeGuest('one', { comm: 'backup', state: 'ready' });
  const guest = await Guest.attach(domain, [knownKernel(O1_KERNEL)]);
  const surgeon = new Surgeon(domain, guest, never);
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'backup')!;
  const hold = () => surgeon.hold(process, { limitMs: 1 });
  await t.throwsAsync(hold, { code: 'timeout', message: /its thread \d+ is still \w+/ });
  const [vcpu] = domain.vcpus;
  domain.vcpus = [{ ...vcpu!, halted: true, rflags: 0x202n }];
  await t.throwsAsync(hold, { code: 'timeout', message: /its thread \d+ is still \w+/ });
  domain.vcpus = [{ ...vcpu!, halted: true, rflags: 0x2n }];
  await t.throwsAsync(hold, {
    code: 'timeout',
    message: /1 of the guest's 1 CPUs have halted .* panicked or was shut down/,
  });
});

test('registers that were read in one pause are not there in the next', async (t) => {
  const { domain } = await fakeGuest('one', { comm: 'backup', state: 'ready' });
  const guest = await Guest.attach(domain, [knownKernel(O1_KERNEL)]);
  // In the kernel, where GS leads to what the kernel has of its CPU.
  const [cpu] = guest.cpus;
  const [vcpu] = await domain.registers.read();
  domain.vcpus = [{ ...vcpu!, cpl: 0, gsBase: cpu!.pda ?? cpu!.area }];
  const seen: number[] = [];
  const holder: Holder = {
    techniques: ['park', 'state'],
    automatic: ['park'],
    renicesHeld: false,
    needsRegisters: (techniques) => techniques.includes('state'),
    observe: (vcpus) => void seen.push(vcpus.size),
    invariants: () => [],
    checkLocks: () => undefined,
    standing: () => 'held',
    planHold: () => null,
    planRelease: () => null,
    planRenice: () => 'later',
  };
  const surgeon = new Surgeon(domain, guest, holder);
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'backup')!;
  for (const technique of ['state', 'park'] as const)
    t.is((await surgeon.hold(process, { techniques: [technique] })).outcome, 'unchanged');
  t.deepEqual(seen, [1, 0]);
  t.is(domain.pause.depth, 0);
});

test('a process of 4,000 threads is held and let go in many pauses, each of which looks at some of them', async (t) => {
  const threads = Array.from({ length: 4_000 }, (_, i): Partial<SyntheticTask> => {
    return { pid: 100 + i, tgid: 100, comm: 'many', state: 'sleeping' };
  });
  const { domain, guest, nice } = await manyThreads(threads);
  // The host may be as slow as it likes.
  const surgeon = new Surgeon(domain, guest, bitHolder(guest), undefined, { planMs: Infinity });
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'many')!;
  const held = await surgeon.hold(process, { limitMs: 60_000 });
  t.log(`${held.attempts} pauses of ${Math.round(held.pausedUs / held.attempts)} µs`);
  t.is(held.outcome, 'held');
  t.true(held.edits.length >= 4_000 / THREADS_PER_PAUSE);
  t.true(held.edits.every(({ writes }) => writes.length <= THREADS_PER_PAUSE));
  t.true(nice().every((value) => value === HELD));
  const released = await surgeon.release(process, { limitMs: 60_000 });
  t.is(released.outcome, 'released');
  t.true(released.edits.every(({ writes }) => writes.length <= THREADS_PER_PAUSE));
  t.true(nice().every((value) => value === FREE));
  t.is(domain.pause.depth, 0);
});

test('more threads than a process may have: not held, and yet let go', async (t) => {
  const threads = Array.from({ length: 4_100 }, (_, i): Partial<SyntheticTask> => {
    return { pid: 100 + i, tgid: 100, comm: 'many', state: 'sleeping', nice: i < 3 ? HELD : FREE };
  });
  const { domain, guest, nice } = await manyThreads(threads);
  const surgeon = new Surgeon(domain, guest, bitHolder(guest));
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'many')!;
  await t.throwsAsync(surgeon.hold(process), { code: 'refused', message: /more than 4096 threads/ });
  t.is((await surgeon.release(process, { limitMs: 60_000 })).outcome, 'released');
  t.true(nice().every((value) => value === FREE));
});

test('a plan that takes too long a pause is not written, is tried again, and given up; letting go is not', async (t) => {
  const { domain, guest, nice } = await manyThreads([{ pid: 100, comm: 'many', state: 'sleeping' }]);
  domain.recorder.recording = true;
  // Less than nothing: every plan takes longer.
  const surgeon = new Surgeon(domain, guest, bitHolder(guest), undefined, { planMs: -1 });
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'many')!;
  await t.throwsAsync(surgeon.hold(process), { code: 'over-budget', message: /set aside/ });
  t.is(domain.recorder.count('write'), 0);
  t.is(domain.pause.depth, 0);
  const free = new Surgeon(domain, guest, bitHolder(guest));
  t.is((await free.hold(process)).outcome, 'held');
  t.is((await surgeon.release(process)).outcome, 'released');
  t.deepEqual(nice(), [FREE]);
});

test('where nothing holds a thread that sleeps, its sleep is enough for a new nice value', async (t) => {
  const { domain, guest, nice } = await manyThreads([{ pid: 100, comm: 'many', state: 'sleeping' }]);
  const { planRelease, planHold, ...bits } = bitHolder(guest);
  const sleeper: Holder = {
    ...bits,
    techniques: ['splice', 'state'],
    automatic: ['splice', 'state'],
    renicesHeld: true,
    planHold: () => null,
    planRelease: () => null,
    // As the nice value itself stands for a hold here, this is what a hold would write.
    planRenice: (draft, thread) => planHold(draft, thread, [])!.outcome,
    standing: () => 'sleeping',
  };
  const process = guest.snapshot().processes.find(({ comm }) => comm === 'many')!;
  const surgeon = new Surgeon(domain, guest, sleeper);
  await t.throwsAsync(surgeon.hold(process, { limitMs: 1 }), { code: 'timeout', message: /sleeping/ });
  t.is((await surgeon.renice(process, HELD, { limitMs: 1 })).outcome, 'reniced');
  t.deepEqual(nice(), [HELD]);
  // One that could be parked would have to be.
  const parks = new Surgeon(domain, guest, { ...sleeper, techniques: ['park'], automatic: ['park'] });
  await t.throwsAsync(parks.renice(process, FREE, { limitMs: 1 }), { code: 'timeout' });
});

/** Stands for a way to hold: by the nice value, which is a word of each thread. */
const HELD = 7;
const FREE = 0;

async function manyThreads(threads: readonly Partial<SyntheticTask>[]) {
  const tasks = threads.map((task) => ({ cpu: 0, ppid: 1, ...task })) as SyntheticTask[];
  const init: SyntheticTask = { pid: 1, comm: 'init', cpu: 0, state: 'sleeping' };
  const synthetic = await SyntheticGuest.make({ kernel: CFS_KERNEL, tasks: [init, ...tasks] });
  const guest = await Guest.attach(synthetic.domain, [knownKernel(CFS_KERNEL)]);
  const nice = () => {
    const { processes } = guest.snapshot({ threads: true });
    return processes.filter(({ comm }) => comm === 'many').map((thread) => thread.nice);
  };
  return { domain: synthetic.domain, guest, nice };
}

function bitHolder(guest: Guest): Holder {
  const { offset } = guest.layout.field('task_struct', 'static_prio');
  const at = (thread: GuestVirtual) => advance(thread, offset);
  const isHeld = (memory: MemoryView, thread: GuestVirtual) => memory.word(at(thread), 4) === 127n;
  const plan = (draft: Draft, thread: GuestVirtual, value: bigint) => {
    draft.set(at(thread), 4, value, 'static_prio');
    const check = (memory: MemoryView) => void memory.word(at(thread), 4);
    return { technique: 'park' as const, outcome: [{ what: 'it is there', check }] };
  };
  return {
    techniques: ['park'],
    automatic: ['park'],
    renicesHeld: false,
    invariants: () => [],
    checkLocks: () => undefined,
    standing: (memory, thread) => (isHeld(memory, thread) ? 'held' : 'sleeping'),
    planHold: (draft, thread) => plan(draft, thread, 127n),
    planRelease: (draft, thread) => (isHeld(draft, thread) ? plan(draft, thread, 120n) : null),
    planRenice: () => 'later',
  };
}
