import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import test from 'ava';
import { execa } from 'execa';
import { EditLog, recover } from '../../../runtime/edit/log.ts';
import { Guest } from '../../../runtime/guest/guest.ts';
import { hostProcess } from '../../../runtime/host-process.ts';
import { holderFor } from '../../../runtime/surgeon/holder-for.ts';
import { Surgeon } from '../../../runtime/surgeon/surgeon.ts';
import { fakeGuest, isQueued } from '../daemon/fake-daemon.ts';
import { knownKernel, O1_KERNEL, type SyntheticGuest } from '../guest/synthetic.ts';

const PID = 10;
const PARTLY_WRITTEN = path.join(import.meta.dirname, 'partly-written.ts');

/** Records, and what is about to be one; not the room that a hold reserves. */
async function entries(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((name) => !name.endsWith('.reserve'));
}

async function scratch(t: { teardown(end: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(path.join(tmpdir(), 'domsched-edits-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function bench(t: { teardown(end: () => Promise<void>): void }, shared?: string) {
  const directory = shared ?? (await scratch(t));
  const made = await fakeGuest('one', { comm: 'backup', state: 'ready' }, { comm: 'other', state: 'ready' });
  const guest = await Guest.attach(made.domain, [knownKernel(O1_KERNEL)]);
  const log = new EditLog(directory);
  const surgeon = new Surgeon(made.domain, guest, holderFor(guest), log);
  const target = guest.snapshot().processes.find(({ pid }) => pid === PID)!;
  return { directory, made, log, surgeon, target };
}

/** Dies before the n-th word is written: what is in memory and on disk then is what stays. */
async function dieAt(n: number, { made, surgeon, target }: Awaited<ReturnType<typeof bench>>) {
  let written = 0;
  const dead = new Promise<void>((resolve) => {
    made.domain.recorder.onCall((call) => {
      if (call.kind === 'write') written += 1;
      // A process that was killed does nothing any more: neither undo nor resume.
      if (written < n) return;
      resolve();
      throw new Error('dead');
    });
  });
  const hold = surgeon.hold(target, { limitMs: 0 }).catch(() => undefined);
  await Promise.race([dead, hold]);
  await hold;
  made.domain.recorder.reset();
  made.domain.recorder.recording = false;
}

/** The domain as QEMU shows it to the next client after we were killed: paused, with our mark on it. */
function pausedByTheDead(made: SyntheticGuest): void {
  const { pause } = made.domain;
  const { acquire } = pause;
  pause.acquire = async () => {
    const guard = await acquire.call(pause);
    return new Proxy(guard, { get: (of, name) => (name === 'foundPaused' ? false : bind(of, name)) });
  };
}

function bind(of: object, name: string | symbol): unknown {
  const value = Reflect.get(of, name);
  return typeof value === 'function' ? value.bind(of) : value;
}

test('killed before any word of a hold: the next one that comes puts the old words back', async (t) => {
  const { surgeon, target } = await bench(t);
  const words = (await surgeon.hold(target, { dryRun: true })).edits[0]!.writes.length;
  t.true(words > 3);
  for (let n = 1; n <= words; n++) {
    const all = await bench(t);
    const before = all.made.image.clone();
    await dieAt(n, all);
    t.is(all.made.image.differences(before).length > 0, n > 1, 'it was half written');
    t.is((await all.log.pending('one')).length, 1);
    pausedByTheDead(all.made);
    t.is(await recover(all.made.domain, all.log), 'undone');
    t.deepEqual(all.made.image.differences(before), []);
    t.deepEqual(await entries(all.directory), []);
  }
});

test('an edit that is over leaves nothing behind', async (t) => {
  const { directory, made, surgeon, target } = await bench(t);
  await surgeon.hold(target);
  t.false(isQueued(made, PID));
  t.deepEqual(await entries(directory), []);
});

test('a domain that runs again since is left alone: its words are its own', async (t) => {
  const all = await bench(t);
  await dieAt(3, all);
  const half = all.made.image.clone();
  for (const queue of all.made.queues) all.made.put(queue, 'rq', 'nr_switches', 77n);
  const ran = all.made.image.clone();
  t.true(ran.differences(half).length > 0);
  pausedByTheDead(all.made);
  t.is(await recover(all.made.domain, all.log), 'nothing');
  t.deepEqual(all.made.image.differences(ran), []);
  t.deepEqual(await entries(all.directory), []);
});

test('the record of an edit that is long over, left by a disk that fails, keeps no half-written one from being undone', async (t) => {
  const all = await bench(t);
  const before = all.made.image.clone();
  await dieAt(3, all);
  t.true(all.made.image.differences(before).length > 0, 'it was half written');
  const [name] = await entries(all.directory);
  const record = JSON.parse(await readFile(path.join(all.directory, name!), 'utf8'));
  // The guest has run since that one: no word that changes then is as it was.
  const still = record.still.map(({ bytes, ...place }: { bytes: string }) => ({
    ...place,
    bytes: bytes.replace(/^../, (first) => (first === '77' ? '78' : '77')),
  }));
  await writeFile(path.join(all.directory, `0${name}`), JSON.stringify({ ...record, still }));
  t.is((await all.log.pending('one')).length, 2);
  pausedByTheDead(all.made);
  t.is(await recover(all.made.domain, all.log), 'undone');
  t.deepEqual(all.made.image.differences(before), []);
  t.deepEqual(await entries(all.directory), []);
});

test('a word that is neither the old nor the new one: nothing is written, and it is said', async (t) => {
  const all = await bench(t);
  await dieAt(3, all);
  const [pending] = await all.log.pending('one');
  const { frame, offset } = pending!.record.writes.at(-1)!;
  all.made.image.store(frame * 4096 + offset, Buffer.from('0123456789abcdef', 'hex').subarray(0, 4));
  const spoilt = all.made.image.clone();
  pausedByTheDead(all.made);
  await t.throwsAsync(recover(all.made.domain, all.log), { code: 'edit-failed', message: /stays paused/ });
  t.deepEqual(all.made.image.differences(spoilt), []);
});

test('cut short while it was written down: not a byte of the guest was written', async (t) => {
  const { directory, made, log } = await bench(t);
  await writeFile(path.join(directory, '1-1.json'), '{"domain":"one","wri');
  t.deepEqual(await log.pending('one'), []);
  t.deepEqual(await entries(directory), []);
  t.true(isQueued(made, PID));
});

test('one of us that has the number of a dead one leaves its record; one that is being written is not read', async (t) => {
  const dead = await bench(t);
  await dieAt(2, dead);
  await writeFile(path.join(dead.directory, '1.new'), '{"domain":"one","wri');
  await dieAt(2, await bench(t, dead.directory));
  t.is((await dead.log.pending('one')).length, 2);
  t.true((await entries(dead.directory)).includes('1.new'));
});

test('an edit that another process is making is left to it, and its domain is sound', async (t) => {
  for (const how of ['comes to its end', 'goes on and on', 'died'] as const) {
    const all = await bench(t);
    await dieAt(2, all);
    const [file] = (await entries(all.directory)).map((name) => path.join(all.directory, name));
    const record = JSON.parse(await readFile(file!, 'utf8'));
    // A process that lives, and one that does not: it is no later one of that number.
    const living = spawn('sleep', ['60']);
    t.teardown(async () => void living.kill());
    const peer = hostProcess(living.pid!)!;
    const writer = how === 'died' ? { ...peer, started: peer.started - 1 } : peer;
    await writeFile(file!, JSON.stringify({ ...record, writer }));
    pausedByTheDead(all.made);
    if (how === 'died') {
      t.is(await recover(all.made.domain, all.log), 'undone');
      continue;
    }
    const writes = all.made.domain.recorder.count('write');
    if (how === 'comes to its end') setTimeout(() => void rm(file!), 100);
    const found = recover(all.made.domain, all.log);
    if (how === 'comes to its end') t.is(await found, 'resumed');
    else
      await t.throwsAsync(found, { code: 'refused', message: new RegExp(`edited by process ${peer.pid}`) });
    t.is(all.made.domain.recorder.count('write'), writes);
    t.is((await entries(all.directory)).length, how === 'goes on and on' ? 1 : 0);
  }
});

test('a folder of edits that was tidied away is made again', async (t) => {
  const { directory, surgeon, target } = await bench(t);
  await surgeon.hold(target, { limitMs: 0 });
  await rm(directory, { recursive: true });
  await surgeon.release(target, { limitMs: 0 });
  t.deepEqual(await entries(directory), []);
});

test('no room for a record: a release is written down where a hold has reserved it; a hold without is none', async (t) => {
  const { directory, made, log, surgeon, target } = await bench(t);
  await surgeon.hold(target);
  // Stands for a full disk: no new file can be made, bytes can be written over bytes.
  const unfinished = path.join(directory, `${process.pid}.new`);
  await mkdir(unfinished);
  const pending: string[] = [];
  made.domain.recorder.recording = true;
  made.domain.recorder.onCall(({ kind }) => {
    if (kind !== 'write' || pending.length > 0) return;
    pending.push(...readdirSync(directory).filter((name) => name.endsWith('.json')));
    const record = JSON.parse(readFileSync(path.join(directory, pending[0]!), 'utf8'));
    t.true(record.writes.length > 0 && record.domain === made.domain.identity.id);
  });
  t.is((await surgeon.release(target)).outcome, 'released');
  t.is(pending.length, 1, 'it was written down before its first word');
  t.deepEqual(await log.pending(made.domain.identity.id), []);
  // It is there for the next release; without it nobody is held.
  await rm(path.join(directory, `${process.pid}.reserve`));
  await t.throwsAsync(surgeon.hold(target), { code: 'journal-failed' });
  t.true(isQueued(made, PID));
});

test('a disk that takes a part of what is written: an error, and no record that is cut off', async (t) => {
  const directory = await scratch(t);
  const edits = path.join(directory, 'edits');
  // A limit on the size of files behaves like a full disk: the first write takes what fits and says so, the next fails.
  const { stdout } = await execa(
    'sh',
    ['-c', `trap '' XFSZ; ulimit -f 8; exec "$0" "$@"`, process.execPath, PARTLY_WRITTEN, edits],
    { cwd: directory },
  );
  t.deepEqual(JSON.parse(stdout), { plain: 'EFBIG', reserve: 'journal-failed', written: 4096 });
  t.deepEqual(await readdir(edits), []);
});
