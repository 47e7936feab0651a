/** Pauses a process as a machine's, and gives the pause up for an operator. */
import process from 'node:process';
import { hostProcess } from '../../../../runtime/host-process.ts';
import { ProcessPause } from '../../../../runtime/hypervisor/vmm/process-pause.ts';

const found = hostProcess(Number(process.argv[2]))!;
const pause = new ProcessPause({ ...found, name: 'busy', isQemu: false, kvmVcpus: 1, args: [] });
await pause.stop();
pause.abandon();
