/** Pauses a process as a machine's, wherever this one runs, says whether it stands, and lets it go on. */
import process from 'node:process';
import { hostProcess } from '../../../../runtime/host-process.ts';
import { ProcessPause } from '../../../../runtime/hypervisor/vmm/process-pause.ts';

const found = hostProcess(Number(process.argv[2]))!;
// A QEMU with a monitor and no manager, whose threads have names.
const pause = new ProcessPause({ ...found, name: 'web', isQemu: true, kvmVcpus: 1, args: [] });
const refusal = pause.editRefusal()?.message ?? null;
await pause.stop();
process.stdout.write(JSON.stringify({ refusal, isQuiet: pause.isQuiet() }));
pause.resume();
