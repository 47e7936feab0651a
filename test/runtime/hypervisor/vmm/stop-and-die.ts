/** Stops all threads of a process, says so, and waits to be killed. */
import process from 'node:process';
import { StoppedThreads } from '../../../../runtime/hypervisor/vmm/stopped-threads.ts';
import { threadsOf } from '../../../../runtime/hypervisor/vmm/vcpu-threads.ts';

const pid = Number(process.argv[2]);
StoppedThreads.stop(pid, () => threadsOf(pid).map(({ tid }) => tid));
process.stdout.write('stopped\n');
setInterval(() => undefined, 1_000);
