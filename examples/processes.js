// Lists all processes of all guests: `node processes.js [CONNECT…]`
import process from 'node:process';
import { connectAll, Guest, knownKernels } from 'domsched';

const kernels = await knownKernels();
await using hosts = await connectAll(process.argv.slice(2));
for (const { host, listing } of await hosts.list()) {
  const { id, name } = listing.identity;
  try {
    await using domain = await host.open(id);
    const guest = await Guest.attach(domain, kernels);
    const { processes } = await guest.take();
    for (const { pid, comm, state, nice } of processes) {
      console.log([name, pid, comm, state, nice].join('\t'));
    }
    guest.detach();
  } catch (error) {
    console.error(`${name}: ${error.message}`);
  }
}
