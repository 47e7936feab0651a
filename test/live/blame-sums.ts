import type { ExecutionContext } from 'ava';
import type { blameEntry } from '../../runtime/command/blame-entry.ts';

/** What `blame --json` prints. */
export type BlameAnswer = ReturnType<typeof blameEntry>;

/** All parts of what `blame --json` printed add up to the whole. */
export function addsUp(t: ExecutionContext, { culprits, processes, ...all }: BlameAnswer): void {
  const sum = (list: readonly { waitedNs: number }[]) => list.reduce((ns, each) => ns + each.waitedNs, 0);
  t.is(sum(culprits), all.waitedNs);
  t.is(sum(processes), all.waitedNs);
  t.is(all.waitedInGuestNs + all.waitedOnHostNs, all.waitedNs);
  t.true(Math.abs(culprits.reduce((parts, { share }) => parts + share, 0) - 1) < 1e-9);
}
