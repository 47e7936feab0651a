import type { ExecutionContext } from 'ava';
import { addsUp, type BlameAnswer } from './blame-sums.ts';
import type { XenTestDomain } from './xen-domain.ts';
import type { XenRemote } from './xen-remote.ts';

/**
 * Plants a culprit in one domain and a victim in another one on the only CPU of a Xen: `blame` in dom0 names the culprit
 * before all other processes of guests. Nothing else may be at work in either. dom0 itself is a culprit too: on an
 * emulated machine looking takes a good part of the CPU.
 */
export async function namesTheCulprit(
  t: ExecutionContext,
  remote: XenRemote,
  { victim, culprit }: { readonly victim: XenTestDomain; readonly culprit: XenTestDomain },
): Promise<void> {
  const loads = [
    [culprit, 'gzip'],
    [victim, 'postgres'],
  ] as const;
  for (const [domain, name] of loads)
    await domain.run(`workload burner ${name} </dev/null >/dev/null 2>&1 & echo $! >/run/${name}`);
  const times = ['--for', '5s', '--interval', '2'];
  const answer = await remote.json<BlameAnswer>('blame', victim.name, 'postgres', ...times);
  for (const [domain, name] of loads) await domain.run(`kill $(cat /run/${name})`);
  t.log(JSON.stringify({ ...answer, culprits: answer.culprits.slice(0, 5) }));
  addsUp(t, answer);
  const [first] = answer.culprits.filter(({ kind }) => kind === 'process');
  t.like(first, { domain: culprit.name, process: 'gzip', place: 'host' });
  t.deepEqual(
    answer.processes.map(({ comm }) => comm),
    ['postgres'],
  );
  // What Xen tells nobody is said to be an estimate.
  const codes = answer.notes.filter(({ domain }) => domain === victim.name).map(({ code }) => code);
  t.true(codes.includes('host-waits-sampled'), codes.join());
}
