/** A daemon that comes after one that was killed: what it takes over, and what it waits for before it lets that go. */
import test from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
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

test('a daemon that comes after one that was killed takes over what is held, and lets it go', async (t) => {
  const { batch, web } = await twoGuests();
  await using first = await FakeDaemon.of([batch, web]);
  await first.startHolding(web);
  t.false(isQueued(batch, BACKUP));
  // Killed: nothing is put back.
  await using second = await FakeDaemon.of([batch, web], { directory: first.directory });
  await second.tick();
  t.is(second.daemon.find('batch').tracker!.holds.size, 1);
  await second.tick();
  t.false(isQueued(batch, BACKUP), 'held until it is known what runs');
  second.daemon.reload(second.settings([]));
  await second.tick();
  await second.tick();
  t.true(isQueued(batch, BACKUP));
  t.deepEqual(await second.held(), []);
});

for (const [how, lose] of [
  [
    'was lost',
    async (daemon: FakeDaemon) => {
      for (const record of await daemon.journals.held.list()) await daemon.journals.held.remove(record);
    },
  ],
  [
    'is of the task_struct that the process had before an execve()',
    async (daemon: FakeDaemon) => {
      for (const record of await daemon.journals.held.list()) {
        await daemon.journals.held.remove(record);
        await daemon.journals.held.add({ ...record, address: '0xffff888000001000' });
      }
    },
  ],
] as const) {
  test(`a process that is held and whose record ${how} is found in the guest, and let go`, async (t) => {
    const { batch, web } = await twoGuests();
    await using first = await FakeDaemon.of([batch, web]);
    await first.startHolding(web);
    t.false(isQueued(batch, BACKUP));
    await lose(first);
    await using second = await FakeDaemon.of([batch, web], { directory: first.directory });
    await second.tick();
    t.is(second.daemon.find('batch').tracker!.holds.size, 1);
    t.deepEqual(await second.held(), ['backup'], 'it has a record again');
    t.deepEqual(await second.daemon.restore(), []);
    t.true(isQueued(batch, BACKUP));
    t.deepEqual(await second.held(), []);
  });
}

test('who gets held behind the back of the daemon is let go before everything is said to be put back', async (t) => {
  const { batch, web } = await twoGuests();
  await using first = await FakeDaemon.of([batch, web]);
  await first.start();
  // Another one of us holds it, and writes that down where nobody looks.
  await using other = await FakeDaemon.of([batch, web]);
  await other.startHolding(web);
  t.false(isQueued(batch, BACKUP));
  t.deepEqual(await first.daemon.restore(), []);
  t.true(isQueued(batch, BACKUP));
});

for (const [when, begin] of [
  ['before its first tick', () => {}],
  ['while it attaches', (daemon: FakeDaemon) => daemon.daemon.tick()],
] as const) {
  test(`told to end ${when}, a daemon puts back what one that was killed holds`, async (t) => {
    const { batch, web } = await twoGuests();
    await using first = await FakeDaemon.of([batch, web]);
    await first.startHolding(web);
    t.false(isQueued(batch, BACKUP));
    await using second = await FakeDaemon.of([batch, web], { directory: first.directory });
    begin(second);
    t.deepEqual(await second.daemon.restore(), []);
    t.true(isQueued(batch, BACKUP));
    t.deepEqual(await second.held(), []);
  });
}

/** Lets nobody attach to a domain, so many times. */
function unreachable({ host }: FakeDaemon, name: string, times = Infinity): void {
  const { open } = host;
  let left = times;
  host.open = async (id) => {
    if (id === name && left-- > 0) throw new DomschedError('timeout', 'it does not answer', {});
    return open.call(host, id);
  };
}

test('what was taken over stays held while the domain of what goes before it is not attached to', async (t) => {
  const { batch, web } = await twoGuests();
  await using first = await FakeDaemon.of([batch, web]);
  await first.startHolding(web);
  await using second = await FakeDaemon.of([batch, web], { directory: first.directory });
  unreachable(second, 'web', 2);
  batch.domain.recorder.recording = true;
  for (let i = 0; i < 20; i++) {
    run(web, SERVER, 300);
    await second.tick();
    t.false(isQueued(batch, BACKUP), `tick ${i + 1}`);
  }
  t.is(batch.domain.recorder.count('write'), 0, 'not even for a moment');
  t.truthy(second.daemon.find('web').guest, 'the domain is there by now');
  await second.tick();
  await second.tick();
  t.true(isQueued(batch, BACKUP), 'the server rests');
});

test('a domain that nobody can attach to keeps nothing held for ever', async (t) => {
  const { batch, web } = await twoGuests();
  await using first = await FakeDaemon.of([batch, web]);
  await first.startHolding(web);
  await using second = await FakeDaemon.of([batch, web], { directory: first.directory });
  unreachable(second, 'web');
  let ticks = 0;
  for (; !isQueued(batch, BACKUP) && ticks < 100; ticks++) await second.tick();
  t.true(ticks > 50 && ticks < 70, `${ticks} ticks of half a second`);
});

test('nor does it beyond the limit of the policy, nor for a policy that is gone', async (t) => {
  const limited = { ...BACKUP_LAST, limit: { maxHoldMs: 5_000, sliceMs: 1_000 } };
  const renamed = { ...BACKUP_LAST, name: 'another' };
  for (const [entry, least, most] of [
    // Less by the time that passes here until the second one attaches, which is the host's.
    [limited, 1, 12],
    [renamed, 1, 4],
  ] as const) {
    const { batch, web } = await twoGuests();
    await using first = await FakeDaemon.of([batch, web]);
    await first.startHolding(web);
    await using second = await FakeDaemon.of([batch, web], { directory: first.directory, entries: [entry] });
    unreachable(second, 'web');
    let ticks = 0;
    for (; !isQueued(batch, BACKUP) && ticks < 100; ticks++) await second.tick();
    t.true(ticks >= least && ticks <= most, `${entry.name}: ${ticks} ticks`);
  }
});

test('what was taken over stays held for who only waits for a CPU', async (t) => {
  const batch = await fakeGuest('batch', { comm: 'backup', state: 'ready' });
  const web = await fakeGuest('web', { comm: 'server', state: 'ready' });
  await using first = await FakeDaemon.of([batch, web]);
  await first.startHolding(web);
  await using second = await FakeDaemon.of([batch, web], { directory: first.directory });
  batch.domain.recorder.recording = true;
  for (let i = 0; i < 6; i++) await second.tick();
  t.is(batch.domain.recorder.count('write'), 0);
  t.false(isQueued(batch, BACKUP));
});

test('a pid that another process has by now is not taken for the one that was held; nor is another boot', async (t) => {
  const { batch, web } = await twoGuests();
  await using first = await FakeDaemon.of([batch, web]);
  await first.startHolding(web);
  const [record] = await first.journals.held.list();
  await first.daemon.restore();
  for (const other of [
    { ...record!, startTimeNs: record!.startTimeNs + 1 },
    { ...record!, address: '0xffff810030000000' },
    { ...record!, boot: 'another' },
    { ...record!, buildId: 'ab' },
  ]) {
    await first.journals.held.add(other);
    await using second = await FakeDaemon.of([batch, web], { directory: first.directory, entries: [] });
    await second.tick();
    t.is(second.daemon.find('batch').tracker!.holds.size, 0);
    t.deepEqual(await second.held(), [], 'and its record is crossed out');
    t.true(isQueued(batch, BACKUP));
  }
});
