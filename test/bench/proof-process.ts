/**
 * `node test/bench/proof-process.ts FILE`: attaches to a dump, proves its kernel's constants twice, and prints what each
 * took as JSON, in ms of CPU time. A process of its own, because only the first proof of a process starts the decoder.
 */
import process from 'node:process';
import { Guest } from '../../runtime/guest/guest.ts';
import { DumpHost } from '../../runtime/hypervisor/dump/host.ts';
import { knownKernels } from '../../runtime/layout/registry.ts';
import { constantsOf } from '../../runtime/surgeon/proved-constants.ts';

await using host = new DumpHost(process.argv[2]!);
const [id] = host.ids();
const guest = await Guest.attach(await host.open(id!), await knownKernels());
const proofs = [0, 1].map(() => {
  const begin = process.cpuUsage();
  const { proofs: found } = constantsOf(guest);
  const { user, system } = process.cpuUsage(begin);
  return { ms: (user + system) / 1000, proved: found.filter(({ value }) => value !== null).length };
});
process.stdout.write(`${JSON.stringify(proofs)}\n`);
