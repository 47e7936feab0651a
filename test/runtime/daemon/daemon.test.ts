import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import type { VcpuTime } from '../../../runtime/hypervisor/types.ts';
import { Metrics } from '../../../runtime/metrics/metrics.ts';
import type { PlacedPolicy } from '../../../runtime/policy/combine.ts';
import { protect } from '../../../runtime/policy/protect.ts';
import { selector } from '../../../runtime/policy/selector.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { HealthCheck } from '../../../runtime/web/health.ts';
import { until } from '../../live/until.ts';
import { CFS_KERNEL, twoBoots } from '../guest/synthetic.ts';
import {
  BACKUP,
  BACKUP_LAST,
  FakeDaemon,
  fakeGuest,
  isQueued,
  run,
  SERVER,
  twoGuests,
} from './fake-daemon.ts';

test('the backup of one guest is held while the server of another runs, and goes on when that rests', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch, web]);
  const before = batch.image.clone();
  await fake.startHolding(web);
  t.false(isQueued(batch, BACKUP));
  t.deepEqual(await fake.held(), ['backup']);
  run(web, SERVER, 300);
  const tick = await fake.tick();
  const [hold] = tick.actions;
  t.like(hold, {
    action: 'hold',
    comm: 'backup',
    policy: 'backups',
    outcome: 'done',
    techniques: ['splice'],
  });
  t.regex(hold!.reason, /web: server \(10\) runs/);
  const shown = tick.domains
    .find(({ name }) => name === 'batch')!
    .processes.find(({ comm }) => comm === 'backup');
  t.like(shown, { state: 'held', held: { policy: 'backups' } });
  const rests = await fake.tick();
  t.is(rests.domains.length, 2);
  t.true(isQueued(batch, BACKUP));
  t.deepEqual(await fake.held(), []);
  // The idle CPU is told to look for work; nothing else differs.
  const idle = batch.physical(batch.initTask) + batch.layout.field('task_struct', 'thread_info').offset;
  const info = batch.physical(Buffer.from(batch.image.load(idle, 8)).readBigUInt64LE());
  t.deepEqual(batch.image.differences(before), [info + batch.layout.field('thread_info', 'flags').offset]);
});

test('a guest that claims CPU time that its host did not see has nobody held, and is named', async (t) => {
  const { batch, web } = await twoGuests();
  web.domain.times = [{ ranNs: 0, waitedNs: 0 }];
  await using fake = await FakeDaemon.of([batch, web]);
  await fake.start();
  const lies = async (ranNs: number) => {
    run(web, SERVER, 300);
    web.domain.times = [{ ranNs: web.domain.times![0]!.ranNs + ranNs, waitedNs: 0 }];
    const { domains } = await fake.tick();
    return domains.filter(({ overstated }) => overstated).map(({ name }) => name);
  };
  const named: string[][] = [];
  // An idle vCPU costs its host something, here 2 %.
  for (let i = 0; i < 18; i++) named.push(await lies(10e6));
  t.true(isQueued(batch, BACKUP), 'once it is known for a liar, what its vCPUs idle away does not count');
  t.deepEqual([named.at(0), named.at(-1)], [[], ['web']]);
  await lies(400e6);
  t.false(isQueued(batch, BACKUP), 'what its vCPUs really do counts');
});

test('protect: the backup is held for as much of the time as the server’s vCPU waits for it, and says so', async (t) => {
  const { batch, web } = await twoGuests();
  web.domain.times = [{ ranNs: 0, waitedNs: 0 }];
  const policy = protect({
    protect: selector([{ domain: 'web', comm: 'server' }]),
    target: { waitMs: 50 },
    windowMs: 2_000,
  });
  const entries = [{ ...BACKUP_LAST, name: 'target', policy: policy as PlacedPolicy['policy'] }];
  await using fake = await FakeDaemon.of([batch, web], { entries });
  await fake.start();
  const reasons: string[] = [];
  let turns = 0;
  for (let i = 0; i < 24; i++) {
    const isHeld = !isQueued(batch, BACKUP);
    turns += isHeld ? 0 : 1;
    // Half a CPU each when both want it; the server needs 30 ms of every 500.
    run(web, SERVER, 30);
    if (!isHeld) run(batch, BACKUP, 470);
    const last: VcpuTime = web.domain.times![0]!;
    web.domain.times = [{ ranNs: last.ranNs + 30e6, waitedNs: last.waitedNs + (isHeld ? 0 : 30e6) }];
    const { actions } = await fake.tick();
    reasons.push(...actions.filter(({ action }) => action === 'hold').map(({ reason }) => reason));
  }
  t.true(turns >= 6 && turns <= 9, `one tick in four, and a few until that is known: ${turns}`);
  t.regex(reasons.at(-1)!, /^held \d+ % of the time: web: server \(10\) waited [36]0\.0 ms in 2 s$/);
});

test('a reload keeps what stays held; the end puts everything back', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch, web]);
  await fake.startHolding(web);
  t.false(isQueued(batch, BACKUP));
  const writes = () => batch.domain.recorder.count('write');
  batch.domain.recorder.recording = true;
  fake.daemon.reload(fake.settings([BACKUP_LAST]));
  run(web, SERVER, 300);
  await fake.tick();
  t.is(writes(), 0, 'not even for a moment');
  t.deepEqual(await fake.daemon.restore(), []);
  t.true(isQueued(batch, BACKUP));
  t.deepEqual(await fake.held(), []);
});

test('a daemon that never saw a domain ends as one that did', async (t) => {
  await using fake = await FakeDaemon.of([]);
  await fake.tick();
  t.deepEqual(await fake.daemon.restore(), []);
  // What nobody catches ends the process: after the next turn of the loop it would be told.
  await setImmediate();
});

test('policies that were read again look once before they have anything done', async (t) => {
  const batch = await fakeGuest('batch', { comm: 'backup', state: 'ready' });
  // It waits for a CPU that a busy host does not give it: two looks tell, one does not.
  const web = await fakeGuest('web', { comm: 'server', state: 'ready' });
  await using fake = await FakeDaemon.of([batch, web]);
  await fake.start();
  await fake.tick();
  t.false(isQueued(batch, BACKUP));
  batch.domain.recorder.recording = true;
  for (let i = 0; i < 3; i++) {
    fake.daemon.reload(fake.settings([BACKUP_LAST]));
    await fake.tick();
    await fake.tick();
  }
  t.is(batch.domain.recorder.count('write'), 0);
  t.false(isQueued(batch, BACKUP));
});

test('no room for the journal: nothing is held, and the daemon goes on', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch, web]);
  // A file where the directory would be.
  await writeFile(path.join(fake.directory, 'held'), '');
  await fake.start();
  run(web, SERVER, 300);
  await fake.tick();
  run(web, SERVER, 300);
  const tick = await fake.tick();
  t.true(isQueued(batch, BACKUP));
  const failed = [...tick.actions, ...tick.domains].filter((one) =>
    'outcome' in one ? one.outcome : one.error,
  );
  t.true(failed.length > 0, 'it is said');
});

test('a guest that ran while it was edited is not edited again before it is reset; others are', async (t) => {
  const { batch, web } = await twoGuests();
  const other = await fakeGuest('other', { comm: 'backup', state: 'ready' });
  await using fake = await FakeDaemon.of([batch, web, other]);
  await fake.start();
  // Somebody resumes it between the first byte and the last.
  let torn = false;
  batch.domain.recorder.onCall(({ kind }) => {
    if (kind === 'write' && !torn) batch.domain.resumeByOther();
    torn ||= kind === 'write';
  });
  run(web, SERVER, 300);
  await fake.tick();
  batch.domain.recorder.recording = true;
  run(web, SERVER, 300);
  const { actions } = await fake.tick();
  t.like(
    actions.find(({ domain }) => domain === batch.domain.identity.id),
    { action: 'hold', outcome: 'failed', code: 'edit-torn' },
  );
  t.false(isQueued(other, BACKUP));
  // The server rests: both backups are to go on.
  for (let i = 0; i < 10; i++) await fake.tick();
  t.true(isQueued(other, BACKUP));
  // It is said at every tick, and its processes are told all the same.
  const last = await fake.tick();
  const told = last.domains.find(({ id }) => id === batch.domain.identity.id)!;
  t.is(told.error?.code, 'edit-torn');
  t.true(told.processes.some(({ held }) => held !== undefined));
  const metrics = new Metrics({ withoutOwn: true });
  metrics.tick(last);
  t.regex(await metrics.text(), /domsched_domain_errors\{reason="edit-torn"\} 1/);
  t.regex(
    await metrics.text(),
    /domsched_problem\{code="edit-torn",domain="batch",message="[^"]*MAY BE TORN[^"]*reset it[^"]*"\} 1/,
  );
  const health = new HealthCheck();
  health.tick(last);
  const { status, problems } = health.get();
  t.is(status, 'edit-torn');
  t.like(problems, [{ code: 'edit-torn', domain: 'batch', message: told.error?.message }]);
  t.is(problems.length, 1);
  t.is(
    batch.domain.recorder.count('write'),
    0,
    'nothing is written into a guest that nobody knows the state of',
  );
  // An operator may.
  const watched = fake.daemon.domains.get(batch.domain.identity.id)!;
  const [key] = [...watched.tracker!.holds.keys()];
  const { outcome } = await watched.operate((open) => watched.edits.release(open, key!, { limitMs: 1_000 }));
  t.is(outcome, 'released');
  t.true(isQueued(batch, BACKUP));
});

test('a domain that cannot be read is reported, and keeps no other from being looked at', async (t) => {
  const { batch, web } = await twoGuests();
  const broken = await fakeGuest('broken', { comm: 'x', state: 'ready' });
  broken.domain.recorder.onCall((call) => {
    if (call.kind === 'registers') throw new DomschedError('timeout', 'it does not answer', {});
  });
  await using fake = await FakeDaemon.of([batch, web, broken]);
  await fake.start();
  run(web, SERVER, 300);
  const tick = await fake.tick();
  t.like(
    tick.domains.find(({ id }) => id === 'broken'),
    { error: { code: 'timeout' }, processes: [] },
  );
  t.deepEqual(await fake.held(), ['backup']);
});

test('a guest that costs more than it may is set aside, by name, and the others are not', async (t) => {
  const { batch, web } = await twoGuests();
  const many = Array.from({ length: 300 }, (_, i) => ({
    pid: 100 + i,
    comm: 'many',
    state: 'sleeping' as const,
  }));
  const huge = await fakeGuest('huge', { comm: 'backup2', state: 'ready' }, ...many);
  let reads = 0;
  const { read } = huge.domain.frames;
  huge.domain.frames.read = (batchOfFrames) => {
    reads += 1;
    return read(batchOfFrames);
  };
  await using fake = await FakeDaemon.of([huge, batch, web], { limits: { lookMs: 1e9, bytes: 16 * 1024 } });
  await fake.start();
  run(web, SERVER, 300);
  const report = await fake.tick();
  t.like(
    report.domains.find(({ id }) => id === 'huge'),
    { error: { code: 'over-budget' }, processes: [] },
  );
  t.deepEqual(await fake.held(), ['backup'], 'the others go on');
  t.true(isQueued(huge, BACKUP));
  const metrics = new Metrics({ withoutOwn: true });
  metrics.tick(report);
  t.regex(await metrics.text(), /domsched_domain_errors\{reason="over-budget"\} 1/);
  const health = new HealthCheck();
  health.tick(report);
  t.is(health.get().unreadable, 1);
  // The longer it goes on the more seldom it is looked at.
  for (let i = 0; i < 40; i++) await fake.tick();
  reads = 0;
  for (let i = 0; i < 10; i++) await fake.tick();
  t.is(reads, 0);
});

test('a domain that hangs in an edit delays no other', async (t) => {
  const { batch, web } = await twoGuests();
  const slow = await fakeGuest('slow', { comm: 'backup2', state: 'ready' });
  await using fake = await FakeDaemon.of([slow, batch, web]);
  await fake.start();
  let resume = () => {};
  const hangs = new Promise<void>((resolve) => {
    resume = resolve;
  });
  const { acquire } = slow.domain.pause;
  slow.domain.pause.acquire = async () => {
    await hangs;
    return acquire.call(slow.domain.pause);
  };
  run(web, SERVER, 300);
  fake.nowMs += 500;
  fake.daemon.tick();
  await fake.daemon.find('batch').settled();
  t.false(isQueued(batch, BACKUP));
  run(web, SERVER, 300);
  fake.nowMs += 500;
  fake.daemon.tick();
  const tick = fake.ticks.at(-1)!;
  t.is(tick.domains.length, 3);
  t.true(tick.actions.some(({ domain, action }) => domain === 'batch' && action === 'hold'));
  resume();
  await fake.daemon.settled();
  t.false(isQueued(slow, BACKUP));
});

test('weight, cap and nice are written down, put back at the end, and left where somebody else set them', async (t) => {
  const guest = await fakeGuest(
    'one',
    { comm: 'db', state: 'ready', nice: 3 },
    { comm: 'web', state: 'ready' },
  );
  const wish = {
    ...BACKUP_LAST,
    name: 'wish',
    select: selector([{ comm: 'db' }]),
    policy: (({ domains, subjects }) => ({
      actions: [
        ...domains.map(({ id }) => ({ type: 'weight' as const, domain: id, weight: 512, reason: 'w' })),
        ...domains.map(({ id }) => ({ type: 'cap' as const, domain: id, cap: 50, reason: 'c' })),
        ...[...subjects].map((process) => ({ type: 'nice' as const, process, nice: -7, reason: 'n' })),
      ],
    })) satisfies typeof BACKUP_LAST.policy,
  };
  const niceOf = () => {
    const { offset } = guest.layout.field('task_struct', 'static_prio');
    return (
      Buffer.from(guest.image.load(guest.physical(guest.tasks.get(10)!) + offset, 4)).readInt32LE() - 120
    );
  };
  await using fake = await FakeDaemon.of([guest], { entries: [wish] });
  await fake.start();
  t.like(await guest.domain.scheduler.get(), { weight: 512, cap: 50 });
  t.is(niceOf(), -7);
  t.is((await fake.journals.changes.list()).length, 2);
  // Killed, and another one after it.
  await using second = await FakeDaemon.of([guest], { directory: fake.directory, entries: [] });
  await guest.domain.scheduler.set({ cap: 80 });
  await second.tick();
  await second.tick();
  await second.tick();
  t.is(niceOf(), 3);
  t.like(await guest.domain.scheduler.get(), { weight: 256, cap: 80 }, 'the cap is somebody else’s by now');
  t.deepEqual(await second.journals.changes.list(), []);
});

test('a domain that vanishes is dropped, one that appears is taken in', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch]);
  await fake.tick();
  fake.host.domains.push(web.domain);
  await fake.tick();
  await fake.tick();
  t.deepEqual(
    (await fake.tick()).domains.map(({ name, error }) => [name, error?.code]),
    [
      ['batch', undefined],
      ['web', undefined],
    ],
  );
  fake.host.domains.shift();
  batch.domain.destroy();
  await fake.tick();
  t.deepEqual(
    (await fake.tick()).domains.map(({ name }) => name),
    ['web'],
  );
});

function torn(): never {
  throw new DomschedError('guest-inconsistent', 'torn', {});
}

test('a guest whose kernel was replaced without a reset is attached to anew', async (t) => {
  const { first, second } = await twoBoots(CFS_KERNEL);
  await using fake = await FakeDaemon.of([first]);
  await fake.start();
  const comms = async () => (await fake.tick()).domains[0]!.processes.map(({ comm }) => comm);
  t.true((await comms()).includes('before'));
  first.domain.vcpus = second.domain.vcpus;
  // Nothing of what was there moves any more; then its vCPUs are asked.
  for (let i = 0; i < 14; i++) await fake.tick();
  const seen = await comms();
  t.true(seen.includes('after') && !seen.includes('before'), seen.join(' '));
});

test('so is one whose old kernel’s memory has become a look without end', async (t) => {
  const { first, second } = await twoBoots(CFS_KERNEL);
  await using fake = await FakeDaemon.of([first]);
  await fake.start();
  const guest = fake.daemon.find(first.domain.identity.name).guest!;
  guest.isQuiet = () => false;
  guest.snapshot = () => {
    throw new DomschedError('walk-unbounded', 'the guest links more than 4194304 objects', {});
  };
  const shown = async () => (await fake.tick()).domains[0]!;
  t.is((await shown()).error?.code, 'walk-unbounded');
  first.domain.vcpus = second.domain.vcpus;
  // Looked at more and more seldom, it is asked who runs each time.
  for (let i = 0; i < 40; i++) await fake.tick();
  const { processes } = await shown();
  t.true(processes.some(({ comm }) => comm === 'after'));
});

test('run queues that never hold still for a look keep no policy from deciding', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch, web]);
  await fake.start();
  for (const { domain } of [batch, web]) {
    const guest = fake.daemon.find(domain.identity.name).guest!;
    const { snapshot } = guest;
    guest.snapshot = (options) => (domain.pause.depth > 0 ? snapshot.call(guest, options) : torn());
  }
  run(web, SERVER, 300);
  const tick = await fake.tick();
  t.false(isQueued(batch, BACKUP));
  t.deepEqual(
    tick.domains.map(({ error }) => error),
    [undefined, undefined],
  );
  await fake.tick();
  t.true(isQueued(batch, BACKUP), 'the server rests');
});

test('nor does another domain, read now and then only, keep anybody held', async (t) => {
  const { batch, web } = await twoGuests();
  const third = await fakeGuest('third', { comm: 'shell', state: 'sleeping' });
  await using fake = await FakeDaemon.of([batch, web, third]);
  await fake.start();
  const guest = fake.daemon.find('third').guest!;
  const { snapshot, processesAlone } = guest;
  for (let i = 0; i < 20; i++) {
    run(web, SERVER, 300);
    await fake.tick();
    t.false(isQueued(batch, BACKUP));
    // Dirty, so that it is really looked at.
    run(third, SERVER, 0);
    Object.assign(
      guest,
      i % 2 === 0 ? { snapshot: torn, processesAlone: torn } : { snapshot, processesAlone },
    );
    await fake.tick();
    t.true(isQueued(batch, BACKUP), 'the server rests');
  }
});

test('a domain that cannot be read for a moment lets nobody go who waits for it', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch, web]);
  await fake.startHolding(web);
  t.false(isQueued(batch, BACKUP));
  batch.domain.recorder.recording = true;
  const guest = fake.daemon.find('web').guest!;
  const { snapshot, processesAlone } = guest;
  guest.snapshot = torn;
  guest.processesAlone = torn;
  for (let i = 0; i < 20; i++) {
    run(web, SERVER, 300);
    const { domains } = await fake.tick();
    const shown = domains.find(({ name }) => name === 'web')!;
    if (i > 10) t.like(shown, { error: { code: 'guest-inconsistent' }, processes: [] }, 'nor is it hidden');
  }
  Object.assign(guest, { snapshot, processesAlone });
  for (let i = 0; i < 3; i++) {
    run(web, SERVER, 300);
    await fake.tick();
  }
  t.is(batch.domain.recorder.count('write'), 0);
  for (let i = 0; i < 3; i++) await fake.tick();
  t.true(isQueued(batch, BACKUP), 'the server rests');
});

test('what cannot be put back at the end is named; what can be is', async (t) => {
  const { batch, web } = await twoGuests();
  await using fake = await FakeDaemon.of([batch, web]);
  await fake.startHolding(web);
  t.is((await fake.held()).length, 1);
  // Its machine no longer stops or starts.
  batch.domain.recorder.onCall((call) => {
    if (call.kind === 'stop') throw new DomschedError('host-unreachable', 'the machine stands still');
  });
  const left = await fake.daemon.restore();
  t.deepEqual(left, [{ domain: batch.domain.identity.id, what: 'held', pid: BACKUP, comm: 'backup' }]);
  t.false(isQueued(batch, BACKUP));
  batch.domain.recorder.reset();
  t.deepEqual(await fake.daemon.restore(), []);
  t.true(isQueued(batch, BACKUP));
});

test('between two ticks the server of one guest begins to run: the tick is brought forward, and the backup held', async (t) => {
  const { batch, web } = await twoGuests();
  const awake = await fakeGuest('web', { comm: 'server', state: 'running' });
  // It has been switched to.
  run(awake, SERVER, 0);
  await using fake = await FakeDaemon.of([batch, web]);
  const { daemon } = fake;
  const metrics = new Metrics({ withoutOwn: true });
  const entry: PlacedPolicy = { ...BACKUP_LAST, rousedBy: { among: 'others' } };
  const prepared: number[] = [];
  const { prepare } = Surgeon.prototype;
  Surgeon.prototype.prepare = function (key, options) {
    prepared.push(key.pid);
    return prepare.call(this, key, options);
  };
  t.teardown(() => {
    Surgeon.prototype.prepare = prepare;
  });
  // No tick comes by itself.
  const slow = { ...fake.settings([entry]), intervalMs: 3_600_000, observers: [metrics] };
  daemon.reload({ ...slow, sentinelMs: 1 });
  await fake.start();
  t.deepEqual(await fake.held(), []);
  t.true(prepared.includes(BACKUP), 'before anybody begins to run');
  const stop = new AbortController();
  const running = daemon.run(stop.signal);
  const before = fake.ticks.length;
  web.domain.image = awake.image;
  const clock = setInterval(() => {
    fake.nowMs += 1;
  }, 1);
  await until('the backup is held', async () => (await fake.held()).length > 0, 60_000, 5);
  clearInterval(clock);
  stop.abort();
  await running;
  t.deepEqual(await fake.held(), ['backup']);
  t.true(fake.ticks.length > before);
  t.true(fake.ticks.slice(before).every(({ early }) => early === true));
  t.false(isQueued(batch, BACKUP));
  const text = await metrics.text();
  t.regex(text, /domsched_early_ticks_total [1-9]/);
  t.regex(text, /domsched_sentinel_looks_total [1-9]/);
  t.regex(text, /domsched_sentinel_cpu_seconds_total [0-9.e-]+/);
});
