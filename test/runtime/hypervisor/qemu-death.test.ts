/** Programs of ours that end in a pause of a QEMU, with and without the process beside them, one after the other. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { examine } from '../../../runtime/command/doctor-run.ts';
import { domainTable } from '../../../runtime/command/domains-run.ts';
import { LocalControl } from '../../../runtime/control/local.ts';
import { marksFolder } from '../../../runtime/hypervisor/qemu/pause-mark.ts';
import { processState } from '../../../runtime/hypervisor/qemu/qemu-process.ts';
import { isStopped } from '../../../runtime/hypervisor/stopped-process.ts';
import { lastRan } from '../../../runtime/hypervisor/thread-clock.ts';
import { until } from '../../live/until.ts';
import { FakeCpu } from './fake-cpu.ts';
import { FakeQemu } from './fake-qemu.ts';

const PROGRAM = fileURLToPath(new URL('edit-and-stop.ts', import.meta.url));

/** Longer than a machine may run after the mark of its pause, ms. */
const LATE_MS = 2_500;

const directory = mkdtempSync(path.join(tmpdir(), 'domsched-death-'));
process.env.DOMSCHED_RUNTIME_DIR = path.join(directory, 'run');
const started: ChildProcess[] = [];
test.after.always(() => {
  for (const child of started) child.kill('SIGKILL');
  rmSync(directory, { recursive: true, force: true });
});

const cpu = new FakeCpu();
test.after.always(() => cpu[Symbol.dispose]());

/** The machine is this process, and a thread of it that sleeps is its CPU. */
async function machine(): Promise<FakeQemu> {
  const qemu = await FakeQemu.start();
  qemu.thread = cpu.thread;
  return qemu;
}

/** A program that gets a signal at these moments of its edits. */
function program(qemu: FakeQemu, signal: string, ...moments: string[]) {
  return programWith({}, qemu, signal, ...moments);
}

/** @param env more of its environment */
function programWith(env: NodeJS.ProcessEnv, qemu: FakeQemu, signal: string, ...moments: string[]) {
  const child = spawn(process.execPath, [PROGRAM, 'qemu', qemu.sockets.qmp, signal, ...moments], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  started.push(child);
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  return { child, next: async () => JSON.parse((await lines.next()).value!) as Record<string, unknown> };
}

/** The process beside a program; undefined once it has ended. */
function watchdogOf({ pid }: ChildProcess): number | undefined {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .find((other) => {
      try {
        const args = readFileSync(`/proc/${other}/cmdline`, 'utf8').split('\0');
        return args.some((arg) => arg.includes('watchdog-process')) && args.includes(String(pid));
      } catch {
        return false;
      }
    });
}

/** As soon as it is seen: a process that was just started has no command line yet. */
async function startedWatchdog(child: ChildProcess): Promise<number> {
  try {
    return await until('the process beside it is there', () => watchdogOf(child), 60_000);
  } catch (error) {
    const beside = readdirSync('/proc').filter((name) => parentOf(name) === child.pid);
    const states = beside.map((pid) => `${pid} ${processState(Number(pid))}`).join(', ');
    throw new Error(`its children: ${states || 'none'}; ${marks()}`, { cause: error });
  }
}

function parentOf(pid: string): number | undefined {
  try {
    return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]);
  } catch {
    return undefined;
  }
}

/** Of pauses, and when the CPU last ran. */
function marks(): string {
  const names = readdirSync(marksFolder()).filter((name) => name.startsWith('qemu-'));
  const said = names.map((name) => `${name}: ${readFileSync(path.join(marksFolder(), name), 'utf8').trim()}`);
  return [...said, `the CPU last ran at ${lastRan(cpu.thread)}`].join('\n');
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  await until('the process beside it has ended', () => watchdogOf(child) === undefined);
}

/** It stands by a pause that nobody is about to end, and whoever edits next ends it. */
async function isLeft(t: ExecutionContext, qemu: FakeQemu, pid: number | undefined): Promise<void> {
  t.is(qemu.status, 'paused');
  await using domain = await qemu.attach();
  t.deepEqual(domain.standing(), { by: 'dead', pid: pid! }, marks());
  const guard = await domain.pause.acquire();
  t.false(guard.foundPaused);
  await guard.release();
  t.is(qemu.status, 'running');
  t.is(domain.standing(), undefined);
}

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGKILL'] as const) {
  test.serial(
    `${signal} while words are written, and of the next of us before they are undone`,
    async (t) => {
      await using qemu = await machine();
      let pid: number | undefined;
      for (const moment of ['word 2', 'planned']) {
        const { child, next } = program(qemu, signal, moment);
        t.is((await next()).at, moment);
        await ended(child);
        t.is(child.signalCode, signal);
        t.is(qemu.status, 'paused', moment);
        pid = child.pid;
      }
      t.false(qemu.commands.includes('cont'), 'it has not run half edited');
      await isLeft(t, qemu, pid);
    },
  );
}

test.serial('SIGTERM before the first word: the guest goes on', async (t) => {
  await using qemu = await machine();
  const { child, next } = program(qemu, 'SIGTERM', 'planned');
  await next();
  await ended(child);
  t.is(qemu.status, 'running');
});

for (const moment of ['planned', 'proof 1', 'word 2', 'proof 2', 'over']) {
  test.serial(`killed together with the process beside it, twice in a row: ${moment}`, async (t) => {
    await using qemu = await machine();
    let pid: number | undefined;
    for (let i = 0; i < 2; i++) {
      // The process beside it does not see that it is stopped before both are killed.
      const { child, next } = programWith({ DOMSCHED_TEST_LOOK_MS: '600000' }, qemu, 'SIGSTOP', moment);
      await next();
      await until('it is stopped', () => isStopped(child.pid!));
      const watchdog = await startedWatchdog(child);
      process.kill(watchdog, 'SIGKILL');
      child.kill('SIGKILL');
      await ended(child);
      pid = child.pid;
    }
    await isLeft(t, qemu, pid);
  });
}

for (const slow of ['stop', 'human-monitor-command']) {
  test.serial(
    `its CPUs run for long after our ${slow}, as on a busy host: known as ours if we die`,
    async (t) => {
      await using qemu = await machine();
      const { child, next } = program(qemu, 'SIGSTOP', 'planned');
      qemu.onCommand = (command) => {
        if (command === slow && qemu.status === 'paused') cpu.run(LATE_MS);
      };
      await next();
      qemu.onCommand = () => undefined;
      await until('it is stopped', () => isStopped(child.pid!));
      process.kill(await startedWatchdog(child), 'SIGKILL');
      child.kill('SIGKILL');
      await ended(child);
      await isLeft(t, qemu, child.pid);
    },
  );
}

/** A stopped program whose watching process has claimed its pause, and dies before it has ended it. */
async function claimedAndDead(qemu: FakeQemu) {
  const stopped = program(qemu, 'SIGSTOP', 'planned', 'planned');
  let watchdog: number | undefined;
  qemu.onCommand = (command) => {
    if (command !== 'query-status' || !isStopped(stopped.child.pid!)) return;
    watchdog = watchdogOf(stopped.child)!;
    process.kill(watchdog, 'SIGKILL');
    qemu.onCommand = () => undefined;
  };
  await stopped.next();
  await until(
    'the process beside it is dead',
    () => watchdog !== undefined && watchdogOf(stopped.child) === undefined,
  );
  return stopped;
}

test.serial(
  'the process beside a stopped one dies as it is to end the pause: the next pause is as any',
  async (t) => {
    await using qemu = await machine();
    const { child, next } = await claimedAndDead(qemu);
    t.is(qemu.status, 'paused');
    child.kill('SIGCONT');
    t.like(await next(), { outcome: 'edit-conflict' });
    await until('it ends the pause itself', () => qemu.status === 'running');
    child.stdin!.write('next\n');
    t.is((await next()).at, 'planned');
    t.true(await until('the new process beside it lets the guest go on', () => qemu.status === 'running'));
    child.kill('SIGKILL');
    await ended(child);
  },
);

test.serial('… and the program is killed too: it is named, and the next of us ends the pause', async (t) => {
  await using qemu = await machine();
  const { child } = await claimedAndDead(qemu);
  child.kill('SIGKILL');
  await ended(child);
  await isLeft(t, qemu, child.pid);
});

test.serial(
  'stopped while words are written: domains and doctor say because of whom, and what to type',
  async (t) => {
    await using qemu = await machine();
    const { child, next } = program(qemu, 'SIGSTOP', 'word 2');
    await next();
    await until('it is stopped', () => isStopped(child.pid!));
    await using domain = await qemu.attach();
    const { since, ...standing } = domain.standing()!;
    t.deepEqual(standing, { by: 'stopped', pid: child.pid, edit: true });
    t.true(Math.abs(Date.now() - since!) < 60_000, 'a moment ago');
    // As the commands say it.
    const place = `qemu:unix:${qemu.sockets.qmp}`;
    const told = (await examine([place])).find(({ check }) => check === 'domain fake')!;
    t.like(told, { status: 'fail', found: 'stands still' });
    t.true(told.advice!.endsWith(`, in the middle of an edit; let it go on: kill -CONT ${child.pid}`));
    await using control = new LocalControl([place]);
    t.regex(
      domainTable(await control.domains()),
      new RegExp(`^fake stands still .* kill -CONT ${child.pid}$`, 'm'),
    );
    child.kill('SIGCONT');
    t.like(await next(), { outcome: 'committed' });
    await until('its pause is over', () => qemu.status === 'running');
    t.is(domain.standing(), undefined);
    child.kill('SIGKILL');
    await ended(child);
  },
);
