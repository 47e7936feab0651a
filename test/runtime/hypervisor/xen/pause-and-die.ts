import { once } from 'node:events';
import process from 'node:process';
import { XenHost } from '../../../../runtime/hypervisor/xen/host.ts';

// A program that pauses domain 5 and then is killed by the test, or ends in the way it is told.
const [directory = '', how = ''] = process.argv.slice(2);
const host = await XenHost.connect('xen:', { root: directory, libraries: directory });
const domain = await host.open('5');
const guard = await domain.pause!.acquire();
if (how === 'keep') guard.keepOnDeath(true);
if (how === 'abandon') guard.abandon();
if (how === 'both') await (await host.open('6')).pause!.acquire();
process.stdout.write('paused\n');
if (how === 'release') {
  await once(process.stdin, 'data');
  await guard.release();
  process.stdout.write('released\n');
}
if (how === 'again') {
  await once(process.stdin, 'data');
  await (await host.open('6')).pause!.acquire();
}
if (how === 'often') {
  await guard.release();
  await once(process.stdin, 'data');
  for (let round = 0; round < 200; round++) {
    const again = await domain.pause!.acquire();
    for (const keep of [true, false]) again.keepOnDeath(keep);
    await again.release();
  }
  process.stdout.write('done\n');
}
if (how === 'throw') throw new Error('uncaught');
if (how === 'exit' || how === 'abandon') process.exit(0);
setTimeout(() => guard.valid, 60_000);
