import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { FakeXen } from './fake-xen.ts';

const PROGRAM = fileURLToPath(new URL('pause-and-die.ts', import.meta.url));
const LIMIT_MS = 60_000;

/** A program that has paused domain 5, and ends as it is told. */
async function paused(xen: FakeXen, how: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, [PROGRAM, xen.directory, how], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [chunk] = await Promise.race([once(child.stdout!, 'data'), once(child, 'exit')]);
  if (!String(chunk).startsWith('paused')) throw new Error(`the program ended with ${chunk}`);
  return child;
}

async function until(condition: () => boolean): Promise<boolean> {
  for (const end = performance.now() + LIMIT_MS; performance.now() < end; await sleep(20)) {
    if (condition()) return true;
  }
  return false;
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
    t.true(await until(() => xen.pauses(5) === 0));
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
  t.true(await until(() => xen.pauses(5) === 1));
});

for (const how of ['exit', 'throw']) {
  test(`a program that ends by ${how} under a pause gives it back`, async (t) => {
    using xen = new FakeXen();
    xen.domain({ domid: 5, name: 'web' });
    await ended(await paused(xen, how));
    t.true(await until(() => xen.pauses(5) === 0));
  });
}

test('killed with an edit half written: stays paused, and the next of us ends that pause', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  const child = await paused(xen, 'keep');
  child.kill('SIGKILL');
  await ended(child);
  t.true(await until(() => xen.hasNotes));
  t.is(xen.pauses(5), 1);
  await using host = await xen.connect();
  const domain = await host.open('5');
  const guard = await domain.pause!.acquire();
  t.false(guard.foundPaused);
  t.is(xen.pauses(5), 1);
  await guard.release();
  t.is(xen.pauses(5), 0);
  t.false(xen.hasNotes);
});

test('an operator lets it run before: then a later pause is none of ours', async (t) => {
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  const child = await paused(xen, 'keep');
  child.kill('SIGKILL');
  await ended(child);
  t.true(await until(() => xen.hasNotes));
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
