/** Holds a process, and is killed after having written so many words of the edit. */
import process from 'node:process';
import { requireCapabilities } from '../../runtime/hypervisor/capability.ts';
import { connect } from '../../runtime/hypervisor/connect.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { JournaledSurgeon, Journals } from '../../runtime/surgeon/journaled-surgeon.ts';
import type { Technique } from '../../runtime/technique/step.ts';
import { processesOf } from '../../runtime/watch/look.ts';
import { findProcess, PATIENCE_MS } from './cycles.ts';

const [connection = '', comm = '', technique = '', words = ''] = process.argv.slice(2);
const host = await connect(connection);
const domain = await host.open(host.ids()[0]!);
requireCapabilities(domain, 'writeFrames');
const surgeon = await JournaledSurgeon.open(domain, await knownKernels(), new Journals());
const { writeFrames } = domain;
const write = writeFrames.write.bind(writeFrames);
writeFrames.write = (writes) => {
  write(writes.slice(0, Number(words)));
  process.kill(process.pid, 'SIGKILL');
};
const processes = await processesOf(surgeon.guest);
await surgeon.hold(findProcess(processes, comm), {
  techniques: [technique as Technique],
  limitMs: PATIENCE_MS,
});
