/** A PVH domain in a live Xen, on a machine of its own: Xen has to be told another timer for it (`xen-machine.ts`). */
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { requireKernel } from '../../kernels/cache.ts';
import { TestLayouts } from './ps-layouts.ts';
import {
  editsAsTold,
  heldByItsOwnWord,
  LONG_FORM,
  listedByItsOwnWord,
  namedByItsOwnWord,
  PROGRAMS,
} from './xen-cycles.ts';
import { XenTestDomain } from './xen-domain.ts';
import { OwnXenMachine } from './xen-machine.ts';
import { XenRemote } from './xen-remote.ts';

const CYCLES = Number(process.env.DOMSCHED_XEN_CYCLES ?? 15);
const KERNEL = 'debian-6.1-cloud';
const MINUTE = 60_000;
/** Of dom0's shells, one that nothing else here uses. */
const SHELL = 1;

test("PVH: ps, hold, release and renice by the guest's own word, with its layout and without; destroyed in the middle of an edit", async (t) => {
  t.timeout(25 * MINUTE + CYCLES * MINUTE);
  await using layouts = await TestLayouts.of(requireKernel(KERNEL).vmlinux);
  await using xen = await OwnXenMachine.boot({
    svm: true,
    files: [{ from: path.join(layouts.dataHome, 'domsched'), to: 'root/.local/share/domsched' }],
  });
  try {
    await onMachine(t, xen);
  } catch (error) {
    await xen.keepArtefacts();
    throw error;
  }
});

async function onMachine(t: ExecutionContext, xen: OwnXenMachine): Promise<void> {
  const domain = await XenTestDomain.boot(xen, {
    name: 'modern',
    type: 'pvh',
    kernel: KERNEL,
    console: 0,
  });
  try {
    const remote = await XenRemote.start(xen);
    await domain.start(...PROGRAMS);
    await editsAsTold(t, remote, domain, CYCLES);
    await domain.quiet(false);
    await heldByItsOwnWord(t, remote, domain);
    // Each takes 15 to 30 s in dom0.
    if (CYCLES >= LONG_FORM) {
      await listedByItsOwnWord(t, domain);
      await namedByItsOwnWord(t, domain);
    } else t.log('whole commands without a layout: with more cycles, in `make soak`');
    const { outcome } = await remote.cycle(domain.name, 'burner-a', 2 * MINUTE);
    await xen.must(`xl destroy ${domain.name}`, MINUTE, SHELL);
    const { rounds, code } = await outcome;
    t.true(rounds >= 2);
    t.true(['domain-gone', 'timeout'].includes(code ?? ''), `${rounds} rounds, ${code}`);
    t.deepEqual(await domain.problems(), []);
    t.deepEqual(xen.machine.console.problems(), []);
  } finally {
    domain.close();
  }
}
