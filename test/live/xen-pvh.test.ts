/**
 * A PVH domain in a live Xen, on a machine of its own. Under QEMU's TCG, a program of such a domain may run for minutes
 * without any interrupt getting through, Xen's own included ("Platform timer appears to have unexpectedly wrapped"): then
 * all else stands still, dom0 too, which is by what it is told from a domain that an edit has harmed.
 */
import path from 'node:path';
import process from 'node:process';
import test, { type ExecutionContext } from 'ava';
import { requireKernel } from '../../kernels/cache.ts';
import { TestLayouts } from './ps-layouts.ts';
import { editsAsTold, PROGRAMS } from './xen-cycles.ts';
import { XenTestDomain } from './xen-domain.ts';
import { Heartbeat } from './xen-heartbeat.ts';
import { OwnXenMachine } from './xen-machine.ts';
import { XenRemote } from './xen-remote.ts';

const CYCLES = Number(process.env.DOMSCHED_XEN_CYCLES ?? 50);
const KERNEL = 'debian-6.1-cloud';
const MINUTE = 60_000;
/** Machines that are tried, as long as they stand still. */
const MACHINES = 2;
/** A domain waits for an answer no longer than its kernel takes to call silence a lockup, which is 20 s. */
const SILENCE_MS = 10_000;
/** Of dom0's shells, those that nothing else here uses. */
const SHELL = { commands: 1, heartbeat: 2 } as const;

test("PVH: ps, hold, release and renice by the guest's own word; destroyed in the middle of an edit", async (t) => {
  t.timeout(30 * MINUTE + 2 * CYCLES * MINUTE);
  await using layouts = await TestLayouts.of(requireKernel(KERNEL).vmlinux);
  for (let machine = 1; ; machine++) {
    await using xen = await OwnXenMachine.boot({
      files: [{ from: path.join(layouts.dataHome, 'domsched'), to: 'root/.local/share/domsched' }],
    });
    using heartbeat = new Heartbeat(xen, SHELL.heartbeat);
    const attempt = await t.try(async (tried) => {
      const work = onMachine(tried, xen);
      // It ends with the machine, when nobody waits for it any more.
      work.catch(() => undefined);
      await Promise.race([work, heartbeat.standstill]);
    });
    t.log(`dom0 was silent for ${heartbeat.longestMs} ms at most`);
    if (!attempt.passed) await xen.keepArtefacts();
    if (attempt.passed || heartbeat.longestMs < SILENCE_MS) {
      attempt.commit();
      return;
    }
    t.log(
      `the emulation stood still: ${attempt.errors.map(({ message, cause }) => cause ?? message).join('; ')}`,
    );
    attempt.discard();
    if (machine < MACHINES) continue;
    t.log(`NOT JUDGED: ${MACHINES} emulated machines stood still`);
    t.pass();
    return;
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
    const { outcome } = await remote.cycle(domain.name, 'burner-a', 2 * MINUTE);
    await xen.must(`xl destroy ${domain.name}`, MINUTE, SHELL.commands);
    const { rounds, code } = await outcome;
    t.true(rounds >= 2);
    t.true(['domain-gone', 'timeout'].includes(code ?? ''), `${rounds} rounds, ${code}`);
    t.deepEqual(await domain.problems(), []);
    t.deepEqual(xen.machine.console.problems(), []);
  } finally {
    domain.close();
  }
}
