// Lists all processes of all guests: `node processes.js [CONNECT…]`
import process from 'node:process';
import { openControl } from 'domsched';

await using control = await openControl(process.argv.slice(2));
const { rows, errors } = await control.ps();
for (const { domain, pid, comm, state, nice } of rows) {
  console.log([domain, pid, comm, state, nice].join('\t'));
}
for (const { domain, message } of errors) console.error(`${domain}: ${message}`);
