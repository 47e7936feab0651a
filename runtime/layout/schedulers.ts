import type { KernelLayout, StructureMember } from '../../extractor/contract.ts';

/** Schedulers that a layout's structures show, whatever the kernel calls itself. */
export type Scheduler = 'o1' | 'cfs' | 'eevdf' | 'rt';

/**
 * Tells which schedulers a kernel has, by the presence of structures and members.
 *
 * - `o1`: `rq.active` and `rq.expired` point to a `prio_array` (until "sched: remove the 'old' scheduler", 2.6.23).
 * - `cfs`: there is a `cfs_rq` (2.6.23 on) and it is not EEVDF's.
 * - `eevdf`: entities have a deadline, or the queue an average ("sched/fair: Implement an EEVDF-like scheduling
 *   policy", 6.6).
 * - `rt`: real-time tasks have their own `rt_rq` (2.6.23 on; before, they share O(1)'s arrays).
 */
export function schedulersOf(structs: KernelLayout['structs']): Scheduler[] {
  const has = (name: string, member?: string): boolean =>
    Object.hasOwn(structs, name) && (member === undefined || contains(structs[name]!.members, member));
  const found: Scheduler[] = [];
  if (has('prio_array') && has('rq', 'active') && has('rq', 'expired')) found.push('o1');
  if (has('cfs_rq')) {
    const eevdf = has('cfs_rq', 'avg_vruntime') || has('sched_entity', 'deadline');
    found.push(eevdf ? 'eevdf' : 'cfs');
  }
  if (has('rt_rq')) found.push('rt');
  return found;
}

function contains(members: readonly StructureMember[], name: string): boolean {
  return members.some(
    (member) => member.name === name || (member.name === null && contains(member.members ?? [], name)),
  );
}
