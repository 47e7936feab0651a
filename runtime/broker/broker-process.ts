/**
 * The process with the privileges, beside a reader that has none. It ends when the reader does. Arguments: where machines
 * are, as in the daemon's configuration.
 */
import { Socket } from 'node:net';
import process from 'node:process';
import { EditLog } from '../edit/log.ts';
import { JournalHealth } from '../journal-health.ts';
import { runtimeDirectory } from '../runtime-directory.ts';
import { ChangeJournal, Journal } from '../surgeon/journal.ts';
import { Broker } from './broker.ts';
import { sendDescriptors } from './descriptors.ts';
import { machinesOf } from './places.ts';
import { DESCRIPTORS, REQUESTS } from './protocol.ts';
import { serve } from './serve.ts';

/** How often it looks for pauses of a reader that does not go on. */
const LOOK_MS = 250;

const directory = runtimeDirectory();
const health = new JournalHealth();
const broker = new Broker(
  machinesOf(process.argv.slice(2)),
  {
    held: new Journal(`${directory}/held`, health),
    changes: new ChangeJournal(`${directory}/changed`, health),
    edits: new EditLog(`${directory}/edits`, health),
    health,
  },
  (machine, descriptors) => sendDescriptors(DESCRIPTORS, machine, descriptors),
);
const looks = setInterval(() => void broker.endSilent(), LOOK_MS);
// Only the end of the reader ends it: a signal to all of its group must not leave a machine paused by halves.
for (const signal of ['SIGINT', 'SIGHUP', 'SIGTERM'] as const) process.on(signal, () => {});
await serve(broker, new Socket({ fd: REQUESTS }));
clearInterval(looks);
process.exit(0);
