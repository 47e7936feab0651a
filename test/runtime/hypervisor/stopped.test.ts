/** A program of ours that is stopped by a signal in its pause: the guest goes on, unless words of an edit may be half done. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { processState } from '../../../runtime/hypervisor/qemu/qemu-process.ts';
import { until } from '../../live/until.ts';
import { FakeQemu } from './fake-qemu.ts';
import { FakeXen } from './xen/fake-xen.ts';

const PROGRAM = fileURLToPath(new URL('edit-and-stop.ts', import.meta.url));

/** Before the edit's first word can be written, while it is, and after. */
const BEFORE = ['planned', 'journal', 'proof 1'];
const WHILE = ['kept', 'quiet 1', 'word 1', 'word 2', 'word 3', 'quiet 2', 'proof 2'];
const AFTER = ['over'];

const started: ChildProcess[] = [];
test.after.always(() => {
  for (const child of started) child.kill('SIGKILL');
});

interface Watched {
  readonly kind: 'qemu' | 'xen';
  readonly place: string;
  readonly runs: () => boolean;
  /** Longer than the process beside ours takes to find us stopped, ms. */
  readonly patience: number;
}

async function stopped(t: ExecutionContext, { kind, place, runs, patience }: Watched, moments: string[]) {
  const child = spawn(process.execPath, [PROGRAM, kind, place, 'SIGSTOP', ...moments], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  started.push(child);
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async () => {
    const { value } = await lines.next();
    if (value === undefined) throw new Error(`it ended with ${child.exitCode ?? child.signalCode}`);
    return JSON.parse(value) as Record<string, unknown>;
  };
  for (const moment of moments) {
    t.is((await next()).at, moment);
    t.true(await until('it is stopped', () => processState(child.pid!) === 'T'), moment);
    if (WHILE.includes(moment)) {
      await sleep(patience);
      t.false(runs(), `${moment}: the guest stands as long as words may be half done`);
    } else {
      t.true(await until(`${moment}: the guest goes on`, runs));
    }
    child.kill('SIGCONT');
    const all = BEFORE.includes(moment)
      ? { outcome: 'edit-conflict', words: [0, 0, 0] }
      : { outcome: 'committed', words: [7, 7, 7] };
    t.deepEqual(await next(), all, moment);
    t.true(await until('the pause is over', runs));
    child.stdin!.write('next\n');
  }
  const [exitCode] = await once(child, 'exit');
  t.is(exitCode, 0);
}

// One after the other: both machines are this process, whose pauses have one mark.
test.serial('QEMU: stopped at every step and every word of an edit', async (t) => {
  t.timeout(300_000);
  await using qemu = await FakeQemu.start();
  const machine: Watched = {
    kind: 'qemu',
    place: qemu.sockets.qmp,
    runs: () => qemu.status === 'running',
    patience: 500,
  };
  await stopped(t, machine, [...BEFORE, ...WHILE, ...AFTER]);
});

test.serial('QEMU: what stands for another reason by then is not let go on', async (t) => {
  t.timeout(300_000);
  await using qemu = await FakeQemu.start();
  const child = spawn(process.execPath, [PROGRAM, 'qemu', qemu.sockets.qmp, 'SIGSTOP', 'planned'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  started.push(child);
  await once(child.stdout!, 'data');
  qemu.status = 'postmigrate';
  await until('it was asked', () => qemu.commands.at(-1) === 'query-status');
  await sleep(500);
  t.false(qemu.commands.includes('cont'));
  child.kill('SIGKILL');
});

test('Xen: stopped before and in the middle of an edit', async (t) => {
  t.timeout(300_000);
  using xen = new FakeXen();
  xen.domain({ domid: 5, name: 'web' });
  const domain: Watched = {
    kind: 'xen',
    place: xen.directory,
    runs: () => xen.pauses(5) === 0,
    patience: 3_000,
  };
  await stopped(t, domain, ['planned', 'proof 1', 'word 2', 'over']);
});
