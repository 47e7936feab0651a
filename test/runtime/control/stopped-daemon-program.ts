import { createServer } from 'node:net';
import process from 'node:process';
import { makeTableFile } from '../../../runtime/hypervisor/pause-files.ts';
import { PauseTable } from '../../../runtime/hypervisor/pause-table.ts';
import { marksFolder } from '../../../runtime/hypervisor/qemu/pause-mark.ts';

// Something that listens as a daemon does, and is stopped while it edits a machine: the machine is this process.
const [socket = ''] = process.argv.slice(2);
new PauseTable(makeTableFile(marksFolder(), 'qemu')).set(0, process.pid, 'keep');
createServer(() => undefined).listen(socket, () => {
  process.stdout.write('listens\n');
  process.kill(process.pid, 'SIGSTOP');
});
