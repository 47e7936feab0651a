import { busyJudge, DEFAULT_THRESHOLD, type WaitingKeys, waitingNow } from './busy.ts';
import { geometric, spread } from './levels.ts';
import type { Action, Policy } from './world.ts';

export interface ShortFirstOptions {
  /** CPU time since its start up to which a process is in the first level, the second, and so on, in ms; ascending. */
  readonly limitsMs?: readonly number[];
  readonly nice?: readonly [first: number, last: number];
  readonly weight?: readonly [first: number, last: number];
  readonly threshold?: number;
}

/**
 * Favours short-running processes by weight and nice alone, without holds (Tadokoro et al., 5.5). Run times are not
 * known in advance, so a process that has used little CPU counts as short and sinks as it continues.
 *
 * Example: `ls` in one guest has used 5 ms and a compiler in another a minute. The first guest weighs more while `ls`
 * runs.
 */
export function shortFirst(options: ShortFirstOptions = {}): Policy<WaitingKeys> {
  const {
    limitsMs = [1_000, 10_000],
    nice = [-5, 10],
    weight = [1024, 64],
    threshold = DEFAULT_THRESHOLD,
  } = options;
  const levels = limitsMs.length + 1;
  const levelOf = (cpuNs: number) => limitsMs.filter((limit) => cpuNs / 1e6 >= limit).length;
  return (world, waiting) => {
    const isBusy = busyJudge(world, threshold, waiting);
    const actions: Action[] = [];
    for (const domain of world.domains) {
      const subjects = domain.processes.filter(({ key }) => world.subjects.has(key));
      const busy = subjects.filter(isBusy);
      for (const { key, cpuNs } of busy) {
        const level = levelOf(cpuNs);
        const reason = `${Math.round(cpuNs / 1e6)} ms of CPU time so far`;
        actions.push({ type: 'nice', process: key, nice: spread(level, levels, nice[0], nice[1]), reason });
      }
      if (busy.length === 0 || domain.weight === undefined) continue;
      const level = Math.min(...busy.map(({ cpuNs }) => levelOf(cpuNs)));
      actions.push({
        type: 'weight',
        domain: domain.id,
        weight: geometric(level, levels, weight[0], weight[1]),
        reason: `its shortest process is of level ${level + 1}`,
      });
    }
    const subjects = world.domains.flatMap(({ processes }) =>
      processes.filter(({ key }) => world.subjects.has(key)),
    );
    return { actions, memory: waitingNow(subjects) };
  };
}
