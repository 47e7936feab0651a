/** What a pause asks of those who may move a machine's memory: all of it for an edit, nothing for a look. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { execa } from 'execa';
import type { DomschedError } from '../../../../runtime/error.ts';
import { hostProcess } from '../../../../runtime/host-process.ts';
import { PauseCounter } from '../../../../runtime/hypervisor/pause-counter.ts';
import { processState } from '../../../../runtime/hypervisor/qemu/qemu-process.ts';
import { ProcessPause } from '../../../../runtime/hypervisor/vmm/process-pause.ts';
import { machineThreads } from '../../../../runtime/hypervisor/vmm/vcpu-threads.ts';
import { until } from '../../../live/until.ts';
import { busyProcess } from './busy-process.ts';

const OTHER = fileURLToPath(new URL('stop-and-die.ts', import.meta.url));
const FROM = fileURLToPath(new URL('pause-from.ts', import.meta.url));

test('nameless threads and a monitor: it is paused for a look, and neither edited nor proved', async (t) => {
  const { pid } = await busyProcess(t, undefined, 'nameless');
  const threads = machineThreads(pid);
  t.is(threads.named, 0);
  t.true(threads.vcpus.length > 0);
  const stands = () => threads.vcpus.every((tid) => processState(tid) === 't');
  // Without an option about monitors a QEMU has one. KVM runs the guest: this thread stops at no translator's borders.
  const machine = { ...hostProcess(pid)!, name: 'web', isQemu: true, kvmVcpus: 1, args: [] };
  const pause = new ProcessPause(machine);
  const counter = new PauseCounter({
    stop: async (use) => {
      await pause.stop(use);
      return { foundPaused: false };
    },
    prove: async () => pause.prove(1),
    isQuiet: () => pause.isQuiet(),
    resume: async () => pause.resume(),
  });
  const refusal = await t.throwsAsync(counter.acquire(), { code: 'refused', message: /debug-threads=on/ });
  t.is(pause.editRefusal()?.message, refusal?.message, 'it is told before');
  t.false(stands());
  {
    await using look = await counter.acquire('look');
    t.true(stands());
    await t.throwsAsync(look.prove(), { code: 'edit-conflict', message: /for a look only/ });
    // A pause for a look does not become one for an edit.
    await using edit = await counter.acquire();
    await t.throwsAsync(edit.prove(), { code: 'edit-conflict' });
  }
  t.false(stands());
  t.true(process.kill(pid, 0));
});

/** A QEMU with a monitor and no manager, whose threads have names. */
const managed = (pid: number) => ({ ...hostProcess(pid)!, name: 'web', isQemu: true, kvmVcpus: 1, args: [] });

test('whether a machine runs is seen wherever it runs: each CPU of the host has a clock of its own', async (t) => {
  const all = cpus().map((_, cpu) => cpu);
  t.log(`${all.length} CPUs`);
  for (const cpu of all) {
    const { pid } = await busyProcess(t);
    await execa('taskset', ['-a', '-p', '-c', String(cpu), String(pid)]);
    // A process of its own: all test files are threads of this one.
    const other = String((cpu + 1) % all.length);
    const { stdout } = await execa('taskset', ['-c', other, process.execPath, FROM, String(pid)]);
    t.deepEqual(JSON.parse(stdout), { refusal: null, isQuiet: true });
  }
});

test('a machine whose CPUs all sleep may be in somebody’s hands: it is not edited', async (t) => {
  const { pid } = await busyProcess(t, undefined, 'cpu', 'asleep');
  await until('it sleeps', () => machineThreads(pid).vcpus.every((tid) => processState(tid) === 'S'));
  const error = await t.throwsAsync(new ProcessPause(managed(pid)).stop(), { code: 'refused' });
  t.regex(error!.message, /none of its CPUs has run for 5 s/);
});

test('another of us is in a pause of its own: it is waited for; a tracer that stays is named, and not waited for again', async (t) => {
  const { pid } = await busyProcess(t);
  const pause = new ProcessPause(managed(pid));
  const another = async () => {
    const other = spawn(process.execPath, [OTHER, String(pid)], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => other.kill('SIGKILL'));
    await once(other.stdout!, 'data');
    return other;
  };
  const soonGone = (other: ChildProcess) => sleep(100).then(() => other.kill('SIGKILL'));
  const brief = await another();
  const stopping = pause.stop('look');
  await soonGone(brief);
  await stopping;
  t.true(pause.isQuiet());
  pause.resume();

  const lasting = await another();
  const refused = { code: 'refused' } as const;
  const error = await t.throwsAsync<DomschedError>(pause.stop('look'), refused);
  t.is(error?.details.tracer, lasting.pid);
  await Promise.all([t.throwsAsync(pause.stop('look'), refused), soonGone(lasting)]);
});
