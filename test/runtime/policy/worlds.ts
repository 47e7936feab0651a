import type { DomainView, Observed, ProcessView, World } from '../../../runtime/policy/world.ts';

/** A process in short: its key is `domain/comm`. */
export type Sketch = Partial<ProcessView> & { readonly comm: string };

let nextPid = 100;

/** Domains in short: `{ web: [{ comm: 'nginx', ranNs: 1e8 }] }`. */
export function domainsOf(
  sketches: Readonly<Record<string, readonly Sketch[]>>,
  share: Partial<Pick<DomainView, 'weight' | 'cap'>> = {},
): DomainView[] {
  return Object.entries(sketches).map(([domain, processes]) => ({
    id: domain,
    name: domain,
    vcpus: 1,
    ...share,
    processes: processes.map((sketch) => processOf(domain, sketch)),
  }));
}

export function processOf(domain: string, sketch: Sketch): ProcessView {
  return {
    key: `${domain}/${sketch.comm}`,
    domain,
    domainName: domain,
    pid: nextPid++,
    ppid: 1,
    state: 'sleeping',
    nice: 0,
    kernelThread: false,
    cpuNs: 0,
    ranNs: 0,
    ...sketch,
  };
}

export function observed(domains: readonly DomainView[], nowMs = 10_000, elapsedMs = 500): Observed {
  return { nowMs, elapsedMs, date: new Date(2026, 0, 5, 12, 0), domains };
}

/** A world in which the named processes are the policy's subjects. */
export function world(domains: readonly DomainView[], subjects: readonly string[], nowMs?: number): World {
  return { ...observed(domains, nowMs), subjects: new Set(subjects) };
}

/** Keys that are held. */
export function held(actions: readonly { readonly type: string; readonly process?: string }[]): string[] {
  return actions
    .filter(({ type }) => type === 'hold')
    .map(({ process }) => process!)
    .sort();
}
