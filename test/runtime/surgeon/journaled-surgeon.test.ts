/** What is written down of a hold, and what is done without. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { DomschedError } from '../../../runtime/error.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { JournaledSurgeon, Journals } from '../../../runtime/surgeon/journaled-surgeon.ts';
import { checkMayBeHeld } from '../../../runtime/surgeon/refusal.ts';
import { BACKUP, fakeGuest, isQueued, twoGuests } from '../daemon/fake-daemon.ts';

async function bench(t: ExecutionContext) {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-journaled-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const { batch } = await twoGuests();
  const journals = new Journals(directory);
  const surgeon = await JournaledSurgeon.open(batch.domain, await knownKernels(), journals);
  const { processes } = await surgeon.guest.take();
  const backup = processes.find(({ pid }) => pid === BACKUP)!;
  const records = async () => (await journals.held.list()).map(({ comm }) => comm);
  return { directory, batch, journals, surgeon, backup, records };
}

test('to hold a process that is held already, by whoever, writes it down', async (t) => {
  const { journals, surgeon, backup, records, batch } = await bench(t);
  t.is((await surgeon.hold(backup, {})).outcome, 'held');
  const again = await JournaledSurgeon.open(batch.domain, await knownKernels(), journals);
  for (const record of await journals.held.list()) await journals.held.remove(record);
  const forgetful = await JournaledSurgeon.open(batch.domain, await knownKernels(), journals);
  t.is((await forgetful.hold(backup, {})).outcome, 'unchanged');
  t.deepEqual(await records(), ['backup']);
  t.is((await forgetful.release(backup, {})).outcome, 'released');
  t.deepEqual(await records(), []);
  for (const opened of [surgeon, again, forgetful]) opened.detach();
});

test('letting go needs no room on the host; holding does, and does nothing without', async (t) => {
  const { directory, batch, surgeon, backup, records } = await bench(t);
  await surgeon.hold(backup, {});
  // As full as it gets: nothing can be made in there.
  await rm(path.join(directory, 'edits'), { recursive: true, force: true });
  await writeFile(path.join(directory, 'edits'), '');
  t.is((await surgeon.release(backup, {})).outcome, 'released');
  t.true(isQueued(batch, BACKUP));
  t.deepEqual(await records(), []);
  await t.throwsAsync(surgeon.hold(backup, {}), { code: 'journal-failed' });
  t.true(isQueued(batch, BACKUP));
  t.deepEqual(await records(), []);
  surgeon.detach();
});

test('the nice value of a process that is exiting is nothing to put back: its record goes', async (t) => {
  const { surgeon, backup, journals } = await bench(t);
  await surgeon.setNice(backup, 5, {});
  t.is((await journals.changes.list()).length, 1);
  const niced = { ...backup, nice: 5 };
  const { renice } = surgeon.surgeon;
  surgeon.surgeon.renice = async () => {
    throw new DomschedError('timeout', 'later', {});
  };
  await t.throwsAsync(surgeon.niceBack(niced, {}), { code: 'timeout' });
  t.is((await journals.changes.list()).length, 1, 'of one that goes on it stays');
  // As a kernel has it where processes are held to be reniced.
  surgeon.surgeon.renice = async (...args) => {
    checkMayBeHeld([{ ...niced, exiting: true }], false);
    return renice.apply(surgeon.surgeon, args);
  };
  t.is(await surgeon.niceBack(niced, {}), undefined);
  t.deepEqual(await journals.changes.list(), []);
  t.deepEqual(await journals.held.list(), []);
  surgeon.detach();
});

test('who is held is found in the guest itself; nobody is, where nobody is held', async (t) => {
  const { batch, surgeon, backup, journals } = await bench(t);
  t.deepEqual(await surgeon.search(), []);
  await surgeon.surgeon.hold(backup);
  t.deepEqual(await journals.held.list(), []);
  const found = await surgeon.search();
  t.deepEqual(
    found.map(({ pid, comm }) => [pid, comm]),
    [[BACKUP, 'backup']],
  );
  t.deepEqual(await surgeon.search(), [], 'it has a record now');
  t.is((await surgeon.release(backup, {})).outcome, 'released');
  t.deepEqual(await surgeon.surgeon.search(), []);
  t.true(isQueued(batch, BACKUP));
  surgeon.detach();
});

test('a process whose main thread has ended is held by those that live', async (t) => {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-journaled-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const guest = await fakeGuest(
    'threads',
    { pid: 20, comm: 'leader', state: 'zombie' },
    { pid: 21, tgid: 20, comm: 'leader', state: 'ready' },
  );
  const surgeon = await JournaledSurgeon.open(guest.domain, await knownKernels(), new Journals(directory));
  const { processes } = await surgeon.guest.take();
  const leader = processes.find(({ pid }) => pid === 20)!;
  t.deepEqual(await surgeon.search(), []);
  t.is((await surgeon.hold(leader, {})).outcome, 'held');
  t.false(isQueued(guest, 21));
  t.is((await surgeon.release(leader, {})).outcome, 'released');
  t.true(isQueued(guest, 21));
  surgeon.detach();
});
