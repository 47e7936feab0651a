/** What a pause asks of those who may move a machine's memory: all of it for an edit, nothing for a look. */
import process from 'node:process';
import test from 'ava';
import { hostProcess } from '../../../../runtime/host-process.ts';
import { PauseCounter } from '../../../../runtime/hypervisor/pause-counter.ts';
import { processState } from '../../../../runtime/hypervisor/qemu/qemu-process.ts';
import { ProcessPause } from '../../../../runtime/hypervisor/vmm/process-pause.ts';
import { machineThreads } from '../../../../runtime/hypervisor/vmm/vcpu-threads.ts';
import { busyProcess } from './busy-process.ts';

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
  await t.throwsAsync(counter.acquire(), { code: 'refused', message: /debug-threads=on/ });
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
