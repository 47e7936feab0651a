/**
 * Xen as it is: Debian's hypervisor in QEMU, a dom0 of Debian's packages with the compiled program in it, and two PV
 * domains. What domsched does in that dom0 is held against what Xen and the domains themselves say. `make soak` has the
 * long form.
 */
import test from 'ava';
import { goesOn } from './cycles.ts';
import { holdAndRelease, listsAsProc, PATIENCE_MS } from './xen-cycles.ts';
import { XenTestDomain } from './xen-domain.ts';
import { OwnXenMachine } from './xen-machine.ts';
import { XenRemote } from './xen-remote.ts';
import { enforces } from './xen-share.ts';

const MINUTE = 60_000;
/** Of each domain. */
const CYCLES = 8;
const PROGRAMS = [
  { kind: 'burner', name: 'burner-a' },
  { kind: 'burner', name: 'burner-nice', nice: 7 },
  { kind: 'sleeper', name: 'sleeper-a' },
  { kind: 'threads', name: 'threads-a' },
] as const;
const NAMES = PROGRAMS.map(({ name }) => name);

test('two PV domains from dom0: weight and cap, ps, hold and release', async (t) => {
  t.timeout(40 * MINUTE);
  await using xen = await OwnXenMachine.boot({ scheduler: 'credit2' });
  const domains: XenTestDomain[] = [];
  try {
    for (const [console, name] of ['web', 'mail'].entries()) {
      const domain = await XenTestDomain.create(xen, { name, console });
      domains.push(domain);
      await domain.ready();
    }
    await using remote = await XenRemote.start(xen);
    for (const domain of domains) await domain.start(...PROGRAMS);
    await enforces(t, xen, remote, 'credit2');
    for (const domain of domains) {
      await domain.quiet(true);
      t.deepEqual(await domain.problems(), [], domain.name);
    }
    for (const domain of domains) {
      await domain.quiet(false);
      await goesOn(t, domain, await domain.progress(...NAMES), PATIENCE_MS);
      await listsAsProc(t, remote, domain);
      for (let cycle = 0; cycle < CYCLES; cycle++) {
        await holdAndRelease(t, remote, domain, NAMES[cycle % NAMES.length]!);
      }
      await domain.quiet(true);
    }
    const listed = await remote.json<Record<string, unknown>[]>('domains');
    for (const { domain, state, kernel, error } of listed) {
      t.is(error, null, String(domain));
      t.is(state, 'running');
      t.is(kernel, (await domains.find(({ name }) => name === domain)!.run('uname -r')).trim());
    }
    t.is(listed.length, domains.length);
    t.deepEqual(xen.machine.console.problems(), []);
  } finally {
    for (const domain of domains) domain.close();
    if (!t.passed) await xen.keepArtefacts();
  }
});
