/**
 * Runs inside dom0: where in the machine's memory a PV domain's kernel says who is on its CPU and who wants it.
 * `node places-in-dom0.mjs DOMAIN COMM…` prints one line of JSON. A PV domain's page tables have frames of the machine,
 * so that a place is one for whoever sees the machine's memory.
 */
import process from 'node:process';
import { Guest } from '../../../runtime/guest/guest.ts';
import { connectAll } from '../../../runtime/hypervisor/connect.ts';
import { membersOf } from '../../../runtime/layout/members.ts';
import { knownKernels } from '../../../runtime/layout/registry.ts';
import { advance, type GuestVirtual } from '../../../runtime/memory/address.ts';
import { openDomain } from '../../../runtime/watch/choose.ts';

/** A word in the machine's memory. */
export interface WordPlace {
  /** In bytes. */
  readonly at: number;
  readonly size: number;
}

/** Where the kernel says of a process whether it has the CPU or wants it. */
export interface ProcessPlace {
  readonly process: string;
  readonly onQueue: WordPlace;
}

const FRAME = 4096;

const [name, ...comms] = process.argv.slice(2);
await using hosts = await connectAll(['xen:']);
await using domain = await openDomain(hosts, name!);
const guest = await Guest.attach(domain, await knownKernels());
const task = membersOf(guest.layout, 'task_struct', ['on_rq']);
const placeOf = (address: GuestVirtual, size: number): WordPlace => {
  const { frame, offset } = guest.space.translate(address);
  return { at: frame * FRAME + offset, size };
};
const { processes } = await guest.take({ limitMs: 60_000 });
const places = comms.map((comm): ProcessPlace => {
  const found = processes.filter((one) => one.comm === comm);
  if (found.length !== 1) throw new Error(`${found.length} processes of ${name} are ${comm}`);
  return { process: comm, onQueue: placeOf(advance(found[0]!.address, task.on_rq.offset), task.on_rq.size) };
});
guest.detach();
process.stdout.write(`${JSON.stringify(places)}\n`);
