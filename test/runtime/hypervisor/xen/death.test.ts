import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { isStopped } from '../../../../runtime/hypervisor/stopped-process.ts';
import type { Domain } from '../../../../runtime/hypervisor/types.ts';
import { until } from '../../../live/until.ts';
import { FakeXen } from './fake-xen.ts';

const PROGRAM = fileURLToPath(new URL('pause-and-die.ts', import.meta.url));

/** Of Linux, errno.h. */
const EBUSY = 16;
/** How far the clocks of two CPUs may be apart on a machine that is virtual itself, ms. */
const CLOCKS_APART_MS = 60_000;

/** Wake-ups in a second of a process that only looks at the time. */
const QUIET = 10;

const started: ChildProcess[] = [];
test.after.always(() => {
  for (const child of started) child.kill('SIGKILL');
});

/** A program that has paused domain 5, and ends as it is told. */
async function paused(xen: FakeXen, how: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [PROGRAM, xen.directory, how], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const [chunk] = await Promise.race([once(child.stdout!, 'data'), once(child, 'close')]);
  started.push(child);
  if (!String(chunk).startsWith('paused')) throw new Error(`the program ended with ${chunk}`);
  return child;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

for (const signal of ['SIGKILL', 'SIGTERM', 'SIGINT'] as const) {
  test(`${signal} under a pause: the domain runs again, and a pause of somebody else stays`, async (t) => {
    using xen = new FakeXen();
    xen.domain({ domid: 5, name: 'web' });
    xen.domain({ domid: 6, name: 'other' });
    xen.otherPause(6, 1);
    const child = await paused(xen, 'wait');
    t.is(xen.pauses(5), 1);
    child.kill(signal);
    await ended(child);
    t.true(await until('5 runs again', () => xen.pauses(5) === 0));
    t.is(xen.pauses(6), 1);
  });
}

test('SIGKILL under a pause of a domain that was found paused: it stays paused once', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  xen.otherPause(5, 1);
  const child = await paused(xen, 'wait');
  t.is(xen.pauses(5), 2);
  child.kill('SIGKILL');
  await ended(child);
  t.true(await until('our pause alone is over', () => xen.pauses(5) === 1));
});

test('SIGTERM under a pause of a domain that was found paused: ours is given back once', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  xen.otherPause(5, 1);
  const child = await paused(xen, 'wait');
  const watchdog = childrenOf(child.pid!)[0]!;
  child.kill('SIGTERM');
  await ended(child);
  t.true(await until('the watchdog has ended', () => hasEnded(watchdog)));
  t.is(xen.pauses(5), 1);
});

test('the process that watches sleeps through our pauses', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  const child = await paused(xen, 'often');
  const watchdog = childrenOf(child.pid!)[0]!;
  // What it does after its start is soon over; then it looks once a second whether we are stopped.
  for (let last = -QUIET; wakeUps(watchdog) - last >= QUIET; await sleep(1000)) last = wakeUps(watchdog);
  const asleep = wakeUps(watchdog);
  child.stdin!.write('go on\n');
  await once(child.stdout!, 'data');
  const woken = wakeUps(watchdog) - asleep;
  t.true(woken < 100, `woken ${woken} times in 200 pauses`);
});

test('a watching process that was killed: the next one knows of the pauses before', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  xen.domain({ domid: 6, name: 'other' });
  const child = await paused(xen, 'again');
  const [first] = childrenOf(child.pid!);
  process.kill(first!, 'SIGKILL');
  // Gone once the program knows.
  t.true(await until('the first is gone', () => !existsSync(`/proc/${first}`)));
  child.stdin!.write('go on\n');
  t.true(await until('6 is paused', () => xen.pauses(6) === 1));
  child.kill('SIGKILL');
  await ended(child);
  t.true(await until('both run again', () => xen.pauses(5) === 0 && xen.pauses(6) === 0));
});

for (const how of ['exit', 'throw']) {
  test(`a program that ends by ${how} under a pause gives it back`, async (t) => {
    using xen = new FakeXen();
    xen.domain({ domid: 5, name: 'web' });
    await ended(await paused(xen, how));
    t.true(await until('5 runs again', () => xen.pauses(5) === 0));
  });
}

/** The pause is known as ours; who only looks does not end it, and the next edit does. @param pid of who left it */
async function endedByTheNext(
  t: ExecutionContext,
  xen: FakeXen,
  domain: Domain,
  pid?: number,
): Promise<void> {
  t.is(xen.pauses(5), 1);
  t.deepEqual(domain.standing!(), { by: 'dead', ...(pid !== undefined && { pid }) });
  const look = await domain.pause!.acquire('look');
  t.true(look.foundPaused);
  await look.release();
  t.is(xen.pauses(5), 1, 'who only looks does not end it');
  const guard = await domain.pause!.acquire();
  t.false(guard.foundPaused);
  t.is(xen.pauses(5), 1);
  await guard.release();
  t.is(xen.pauses(5), 0);
  t.is(domain.standing!(), undefined);
}

/** A program is killed with an edit half written, and the process beside it notes that. */
async function killedInAnEdit(xen: FakeXen): Promise<void> {
  const child = await paused(xen, 'keep');
  child.kill('SIGKILL');
  await ended(child);
  await until('it has notes', () => xen.hasNotes);
}

test('killed with an edit half written: stays paused, and the next of us ends that pause', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await killedInAnEdit(xen);
  await using host = await xen.connect();
  await endedByTheNext(t, xen, await host.open('5'));
  t.false(xen.hasNotes);
});

for (const signal of ['SIGKILL', 'SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
  test(`${signal} of the next of us, before it has undone that edit: stays paused for the one after`, async (t) => {
    using xen = new FakeXen();
    xen.domain({ domid: 5, name: 'web' });
    for (const how of ['keep', 'wait']) {
      const child = await paused(xen, how);
      const watchdog = childrenOf(child.pid!)[0]!;
      child.kill(how === 'keep' ? 'SIGKILL' : signal);
      await ended(child);
      t.true(await until('the watchdog has ended', () => hasEnded(watchdog)));
      t.is(xen.pauses(5), 1, how);
    }
    await using host = await xen.connect();
    const guard = await (await host.open('5')).pause!.acquire();
    t.false(guard.foundPaused);
    await guard.release();
    t.is(xen.pauses(5), 0);
  });
}

/** A program and the process beside it end in one moment. */
async function killedTogether(xen: FakeXen, how: string): Promise<number> {
  const child = await paused(xen, how);
  const watchdog = childrenOf(child.pid!)[0]!;
  // Stopped, neither does anything about the other's death.
  for (const pid of [watchdog, child.pid!]) process.kill(pid, 'SIGSTOP');
  for (const pid of [watchdog, child.pid!]) process.kill(pid, 'SIGKILL');
  await ended(child);
  await until('the watchdog has closed its files', () => hasEnded(watchdog));
  return child.pid!;
}

for (const how of ['wait', 'keep']) {
  for (const [times, words] of [
    [1, 'once'],
    [2, 'twice in a row'],
  ] as const) {
    test(`killed together with the process beside it, ${words} (${how}): it is named, and the next of us ends that pause`, async (t) => {
      using xen = new FakeXen();
      xen.domain({ domid: 5, name: 'web' });
      let pid = 0;
      for (let i = 0; i < times; i++) pid = await killedTogether(xen, how);
      await using host = await xen.connect();
      const domain = await host.open('5');
      await endedByTheNext(t, xen, domain, pid);
      xen.otherPause(5, 1);
      t.is(domain.standing!(), undefined, 'nothing is left that an operator could be taken for');
    });
  }
}

test('a pause that was left is still known after a try to end it that failed', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await killedTogether(xen, 'keep');
  await using host = await xen.connect();
  const domain = await host.open('5');
  // Once a process watches, a pause waits for nothing: no question of the domain's timer comes between its own.
  await (await domain.pause!.acquire('look')).release();
  // The first question is whether it stands.
  xen.fail('info', 14, 1);
  await t.throwsAsync(domain.pause!.acquire());
  t.is(xen.pauses(5), 1);
  t.like(domain.standing!(), { by: 'dead' });
  await (await domain.pause!.acquire()).release();
  t.is(xen.pauses(5), 0);
});

test('an unpause that fails: the pause is known as ours, and ended by the next edit', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await using host = await xen.connect();
  const domain = await host.open('5');
  const guard = await domain.pause!.acquire();
  xen.fail('unpause', 14);
  await t.throwsAsync(guard.release());
  await endedByTheNext(t, xen, domain);
});

test('a pause that fails, and cannot be given back: known as ours, and ended by the next edit', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await using host = await xen.connect();
  const domain = await host.open('5');
  await (await domain.pause!.acquire()).release();
  // The second time that it is asked about: after the pause.
  xen.fail('info', 13, 1);
  xen.fail('unpause', 14);
  await t.throwsAsync(domain.pause!.acquire());
  await endedByTheNext(t, xen, domain);
});

test('killed together under a pause of a domain that was found paused: ours alone is ended', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  xen.otherPause(5, 1);
  await killedTogether(xen, 'wait');
  t.is(xen.pauses(5), 2);
  await using host = await xen.connect();
  const domain = await host.open('5');
  await (await domain.pause!.acquire()).release();
  t.is(xen.pauses(5), 1);
  await (await domain.pause!.acquire()).release();
  t.is(xen.pauses(5), 1, 'the rest is theirs');
});

test('killed together, and it has run since: a later pause is none of ours', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await killedTogether(xen, 'wait');
  xen.otherPause(5, -1);
  xen.run(5, 1000);
  xen.otherPause(5, 1);
  await using host = await xen.connect();
  const domain = await host.open('5');
  t.is(domain.standing!(), undefined);
  const guard = await domain.pause!.acquire();
  t.true(guard.foundPaused);
  await guard.release();
  t.is(xen.pauses(5), 1);
});

for (const [how, signal] of [
  ['stopped', 'SIGSTOP'],
  ['dead', 'SIGKILL'],
] as const) {
  test(`${how} with two domains paused, of which one cannot be let go on: the other goes on, then it too`, async (t) => {
    using xen = new FakeXen();
    xen.domain({ domid: 5, name: 'web' });
    xen.domain({ domid: 6, name: 'other' });
    xen.set('stuck', EBUSY, 5);
    const child = await paused(xen, 'both');
    child.kill(signal);
    t.true(await until('6 runs', () => xen.pauses(6) === 0));
    t.is(xen.pauses(5), 1);
    xen.set('stuck', 0, 5);
    t.true(await until('5 runs', () => xen.pauses(5) === 0));
  });
}

/** A stopped program whose watching process has claimed its pause, and dies before it has ended it. */
async function claimedAndDead(xen: FakeXen): Promise<ChildProcess> {
  xen.domain({ domid: 5, name: 'web' });
  const child = await paused(xen, 'release');
  const watchdog = childrenOf(child.pid!)[0]!;
  xen.set('slow', 1, 5);
  child.kill('SIGSTOP');
  await until('the watchdog ends the pause', () => xen.get('waiting', 5) === 1);
  process.kill(watchdog, 'SIGKILL');
  await until('the watchdog has ended', () => hasEnded(watchdog));
  xen.set('slow', 0, 5);
  return child;
}

test('the process beside a stopped one dies as it is to end the pause: it is named, and ended as the program goes on', async (t) => {
  using xen = new FakeXen();
  const child = await claimedAndDead(xen);
  t.is(xen.pauses(5), 1);
  await using host = await xen.connect();
  const domain = await host.open('5');
  t.like(domain.standing!(), { by: 'stopped', pid: child.pid });
  child.stdin!.write('go on\n');
  child.kill('SIGCONT');
  await once(child.stdout!, 'data');
  t.is(xen.pauses(5), 0);
});

test('… and the program is killed too: the next of us ends it', async (t) => {
  using xen = new FakeXen();
  const child = await claimedAndDead(xen);
  child.kill('SIGKILL');
  await ended(child);
  t.is(xen.pauses(5), 1);
  await using host = await xen.connect();
  const domain = await host.open('5');
  t.deepEqual(domain.standing!(), { by: 'dead', pid: child.pid });
  await (await domain.pause!.acquire()).release();
  t.is(xen.pauses(5), 0);
});

test('stopped while an edit is half written: it is named, with that', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  const before = Date.now();
  const child = await paused(xen, 'keep');
  child.kill('SIGSTOP');
  await until('it is stopped', () => isStopped(child.pid!));
  await using host = await xen.connect();
  const domain = await host.open('5');
  const { since, ...standing } = (await domain.standing!())!;
  t.deepEqual(standing, { by: 'stopped', pid: child.pid, edit: true });
  t.true(since! >= before - CLOCKS_APART_MS && since! <= Date.now());
  child.kill('SIGCONT');
  await until('it goes on', () => !isStopped(child.pid!));
  t.is(domain.standing!(), undefined, 'it is busy, not stopped');
});

test('an operator lets it run before: then a later pause is none of ours', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await killedInAnEdit(xen);
  xen.otherPause(5, -1);
  xen.run(5, 1000);
  xen.otherPause(5, 1);
  await using host = await xen.connect();
  const domain = await host.open('5');
  const guard = await domain.pause!.acquire();
  t.true(guard.foundPaused);
  await guard.release();
  t.is(xen.pauses(5), 1);
});

test('abandoned: stays paused after our end', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  await ended(await paused(xen, 'abandon'));
  t.is(xen.pauses(5), 1);
  await sleep(500);
  t.is(xen.pauses(5), 1);
});

/** Watching processes that a program has started. */
function childrenOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        // After the name, which may hold anything: state, parent.
        const [state, ppid] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return Number(ppid) === parent && state !== 'Z' && isWatchdog(pid);
      } catch {
        return false;
      }
    });
}

function isWatchdog(pid: number): boolean {
  return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('watchdog-process');
}

/** Whether a process and all of its threads are dead, so that its files are closed; its memory is gone before them. */
function hasEnded(pid: number): boolean {
  try {
    const [, state] = /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, 'latin1'))!;
    return state === 'Z' && readdirSync(`/proc/${pid}/task`).length === 1;
  } catch {
    return true;
  }
}

/** How often any of its threads has waited for something, and got it. */
function wakeUps(pid: number): number {
  let sum = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
    sum += Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)![1]);
  }
  return sum;
}
