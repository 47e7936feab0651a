/** A Xen whose own scheduler is credit2: what the program sets there is what domains get. */
import test from 'ava';
import { XenTestDomain } from '../live/xen-domain.ts';
import { OwnXenMachine } from '../live/xen-machine.ts';
import { XenRemote } from '../live/xen-remote.ts';
import { enforces } from '../live/xen-share.ts';

const MINUTE = 60_000;

test('weight and cap under credit2, by the CPU time that Xen counts', async (t) => {
  t.timeout(40 * MINUTE);
  await using xen = await OwnXenMachine.boot({ scheduler: 'credit2' });
  const domains: XenTestDomain[] = [];
  let clean = false;
  try {
    for (const [console, name] of ['web', 'mail'].entries()) {
      domains.push(await XenTestDomain.boot(xen, { name, console, vcpus: 1 }));
    }
    await using remote = await XenRemote.start(xen);
    for (const domain of domains) await domain.start({ kind: 'burner', name: 'burner-a' });
    await enforces(t, xen, remote, 'credit2');
    for (const domain of domains) t.deepEqual(await domain.problems(), [], domain.name);
    t.deepEqual(xen.machine.console.problems(), []);
    clean = t.passed;
  } finally {
    for (const domain of domains) domain.close();
    if (!clean) await xen.keepArtefacts();
  }
});
