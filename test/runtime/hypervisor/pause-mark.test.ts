import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { type HostProcess, hostProcess, isAlive } from '../../../runtime/host-process.ts';
import {
  isMarkedBy,
  leftPausedBy,
  markPause,
  unmarkPause,
} from '../../../runtime/hypervisor/qemu/pause-mark.ts';
import { FakeCpu } from './fake-cpu.ts';
import { FakeQemu } from './fake-qemu.ts';

const directory = mkdtempSync(path.join(tmpdir(), 'domsched-marks-'));
process.env.DOMSCHED_RUNTIME_DIR = path.join(directory, 'run');
const marks = path.join(directory, 'run', 'pauses');
const children: ChildProcess[] = [];
test.after.always(() => {
  for (const child of children) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

/** A process whose only thread stands for a vCPU: it sleeps, until it is told to run. */
async function machine(): Promise<HostProcess & { run(): Promise<void> }> {
  const child = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
  children.push(child);
  const run = async () => {
    child.stdin!.write('x\n');
    await once(child.stdout!, 'data');
  };
  await run();
  return { ...hostProcess(child.pid!)!, run };
}

function isLeftPaused(of: HostProcess, vcpus: readonly number[]): boolean {
  return leftPausedBy(of, vcpus) !== undefined;
}

/** The mark as a process left it that is dead. @param ranMs for how long its CPUs have run since */
function leave(of: HostProcess, ranMs = 0, writer = { pid: process.pid, started: 1 }): void {
  const file = path.join(marks, `qemu-${of.pid}-${of.started}`);
  const mark = JSON.parse(readFileSync(file, 'utf8'));
  const ran = Object.fromEntries(
    Object.entries<number>(mark.ran).map(([thread, then]) => [thread, then - ranMs]),
  );
  writeFileSync(file, JSON.stringify({ ...mark, writer, ran }));
}

test.serial(
  'a pause is left when its writer is dead, the machine is the same and its vCPUs have not run since',
  async (t) => {
    const paused = await machine();
    markPause(paused, [paused.pid], 'me');
    t.true(isMarkedBy(paused, 'me'));
    t.false(isMarkedBy(paused, 'another'));
    t.false(isLeftPaused(paused, [paused.pid]), 'its writer, which is this process, lives');
    leave(paused);
    t.true(isLeftPaused(paused, [paused.pid]));
    t.false(
      isLeftPaused({ ...paused, started: paused.started + 1 }, [paused.pid]),
      'a later process of that id',
    );
    t.false(isLeftPaused(paused, []), 'nothing is known of its vCPUs');
    t.false(isLeftPaused(paused, [paused.pid, process.pid]), 'nothing is known of one of them');
    leave(paused, 1_000);
    t.true(isLeftPaused(paused, [paused.pid]), 'it ran for a while, until it stood');
    leave(paused, 1_000);
    t.false(isLeftPaused(paused, [paused.pid]), 'it ran for long');
    leave(paused, -4_000);
    t.false(isLeftPaused(paused, [paused.pid]), 'it ran on, on a CPU whose clock is behind');
    leave(paused, 2_000);
    t.true(isLeftPaused(paused, [paused.pid]));
    await sleep(2_000);
    t.true(isLeftPaused(paused, [paused.pid]), 'it stands since');
    await paused.run();
    t.false(isLeftPaused(paused, [paused.pid]), 'somebody has resumed it');
  },
);

test.serial('an owner takes its own mark away; those of dead machines go by themselves', async (t) => {
  const one = await machine();
  markPause(one, [one.pid], 'me');
  unmarkPause(one, 'another');
  t.true(isMarkedBy(one, 'me'));
  unmarkPause(one, 'me');
  t.false(isMarkedBy(one, 'me'));
  // The first needed room for its file, the next does not.
  const file = path.join(marks, `qemu-${one.pid}-${one.started}`);
  const { ino, size } = statSync(file);
  markPause(one, [one.pid], 'me');
  t.like(statSync(file), { ino, size });
  unmarkPause(one, 'me');
  writeFileSync(path.join(marks, 'qemu-1-1'), '{}');
  t.false(isAlive({ pid: 1, started: 1 }));
  const { tidy } = await import('../../../runtime/hypervisor/qemu/pause-mark.ts');
  tidy();
  t.false(readdirSync(marks).includes('qemu-1-1'));
});

test.serial(
  'a pause that a dead process left is ended by who edits next, not by who only looks',
  async (t) => {
    await using qemu = await FakeQemu.start();
    // The machine is this process, and a thread of it that sleeps is its CPU.
    using cpu = new FakeCpu();
    qemu.thread = cpu.thread;
    const own = hostProcess(process.pid)!;
    await using domain = await qemu.attach();
    qemu.stop();
    await domain.state();
    markPause(own, [qemu.thread], 'one that was killed');
    leave(own);
    t.true(isLeftPaused(own, [qemu.thread]));
    const look = await domain.pause.acquire('look');
    t.true(look.foundPaused);
    await look.release();
    t.is(qemu.status, 'paused');
    t.false(qemu.commands.includes('cont'));
    qemu.onCommand = (command) => {
      if (command === 'stop') qemu.migration = { status: 'active' };
    };
    await t.throwsAsync(domain.pause.acquire(), { code: 'refused', message: /migrated/ });
    t.is(qemu.status, 'paused');
    t.like(domain.standing(), { by: 'dead' }, 'it is known as ours after a try to end it that failed');
    qemu.onCommand = () => undefined;
    qemu.migration = {};
    const edit = await domain.pause.acquire();
    t.false(edit.foundPaused);
    await edit.release();
    t.is(qemu.status, 'running');
  },
);
