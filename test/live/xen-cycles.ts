/** What a domain of a live Xen says itself when its processes are listed, held and released from dom0. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { compareWithProc, READ_STATS, READ_THREADS } from './against-proc.ts';
import { goesOn } from './cycles.ts';
import { parseProcStats } from './proc-stat.ts';
import type { XenTestDomain } from './xen-domain.ts';
import type { XenRemote } from './xen-remote.ts';

/** In which a domain of a busy host surely gets somewhere. */
export const PATIENCE_MS = 180_000;

/** `ps` from dom0, paused and running, is what the domain's own /proc shows. */
export async function listsAsProc(
  t: ExecutionContext,
  remote: XenRemote,
  domain: XenTestDomain,
): Promise<void> {
  for (const options of [{ pause: true }, { threads: true }]) {
    const read = options.threads ? READ_THREADS : READ_STATS;
    const before = parseProcStats(await domain.run(read));
    const seen = await remote.processes(domain.name, options);
    const after = parseProcStats(await domain.run(read));
    t.is(seen.exact, options.pause ?? false);
    compareWithProc(t, before, seen.processes, after);
  }
}

/** At a random moment; whether it runs, is ready or sleeps, what is held makes no progress. */
export async function holdAndRelease(
  t: ExecutionContext,
  remote: XenRemote,
  domain: XenTestDomain,
  program: string,
): Promise<void> {
  t.is((await remote.hold(domain.name, program)).outcome, 'held', program);
  const before = await domain.progress(program);
  await sleep(Math.random() * 100);
  t.deepEqual(await domain.progress(program), before, 'what is held makes no progress');
  t.is((await remote.release(domain.name, program)).outcome, 'released', program);
  await goesOn(t, domain, before, PATIENCE_MS);
  t.deepEqual(await domain.problems(), []);
}
