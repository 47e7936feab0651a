/** Stops all threads of a process, freezes it too when asked to, says so, and waits to be killed. */
import process from 'node:process';
import { hostProcess } from '../../../../runtime/host-process.ts';
import { Freezer } from '../../../../runtime/hypervisor/vmm/freezer.ts';
import { StoppedThreads } from '../../../../runtime/hypervisor/vmm/stopped-threads.ts';
import { threadsOf } from '../../../../runtime/hypervisor/vmm/vcpu-threads.ts';

const pid = Number(process.argv[2]);
for (let stopped = false; !stopped; ) {
  try {
    StoppedThreads.stop(pid, () => threadsOf(pid).map(({ tid }) => tid));
    stopped = true;
  } catch {
    // The host is busy: given up, and tried again.
  }
}
if (process.argv[3] === 'freeze') Freezer.of(hostProcess(pid)!)!.freeze();
process.stdout.write('stopped\n');
setInterval(() => undefined, 1_000);
