import process from 'node:process';
import { QemuDomain } from '../../runtime/hypervisor/qemu/domain.ts';

// A program that pauses a machine and then is killed by the test, or ends in the way it is told.
const [qmp = '', how = ''] = process.argv.slice(2);
const domain = await QemuDomain.attach({ qmp }, `qemu:unix:${qmp}`);
const guard = await domain.pause.acquire();
if (how === 'keep') guard.keepOnDeath(true);
// The watchdog is told through a pipe: what is written is there, whether it has read it or not.
process.stdout.write('paused\n');
if (how === 'throw') throw new Error('uncaught');
if (how === 'exit') process.exit(0);
setTimeout(() => guard.valid, 60_000);
