import { type Culprit, culpritKey } from './charge.ts';
import type { DomainDelta, SampleDelta, VcpuDelta } from './delta.ts';
import type { CpuLane } from './lanes.ts';
import { split } from './split.ts';

/** A culprit, and its part of a wait. */
export interface WeightedCulprit {
  readonly culprit: Culprit;
  /** Positive. */
  readonly weight: number;
}

/** Somebody that ran on a CPU of the host. */
interface Runner {
  readonly ranNs: number;
  /** The vCPU that it is, if it is one. */
  readonly vcpu?: VcpuDelta;
  readonly culprits: () => readonly WeightedCulprit[];
}

/** A whole that parts are weighed in: large enough for parts to be small, small enough for doubles. */
const WHOLE = 1e12;

/** Who ran on which CPU of the host between two samples, down to the processes of guests. */
export class HostCpus {
  readonly #runners = new Map<number, Runner[]>();
  /** CPUs of vCPUs whose place the hypervisor does not tell. */
  readonly #anywhere: Runner[] = [];

  constructor(delta: SampleDelta, lanes: ReadonlyMap<string, readonly CpuLane[]>) {
    const ofThread = new Map<number, { vcpu: VcpuDelta; culprits: Runner['culprits'] }>();
    const ofProcess = new Map<number, DomainDelta>();
    for (const domain of delta.domains) {
      if (domain.domain.pid !== undefined) ofProcess.set(domain.domain.pid, domain);
      for (const lane of lanes.get(domain.domain.id) ?? []) {
        const culprits = once(() => guestCulprits(domain, lane));
        for (const vcpu of lane.vcpus) {
          const { tid } = vcpu.vcpu;
          if (tid !== undefined) ofThread.set(tid, { vcpu, culprits });
          else this.#add(vcpu.hostCpus, { ranNs: vcpu.ranNs, vcpu, culprits });
        }
      }
    }
    for (const { thread, hostCpus, ranNs } of delta.threads) {
      const known = ofThread.get(thread.tid);
      if (known !== undefined) {
        this.#add(hostCpus, { ranNs, ...known });
        continue;
      }
      const machine = ofProcess.get(thread.pid);
      const culprit: Culprit =
        machine === undefined
          ? { kind: 'host', comm: thread.comm }
          : { kind: 'machine', domain: machine.domain.name };
      this.#add(hostCpus, { ranNs, culprits: () => [{ culprit, weight: 1 }] });
    }
  }

  /** Who had the CPUs that a lane's vCPUs waited for. Empty if nobody was seen there. */
  culpritsOf({ vcpus, cappedNs, domain }: DomainDelta, lane: CpuLane): WeightedCulprit[] {
    const all = vcpus.reduce((sum, { waitedNs }) => sum + waitedNs, 0);
    const sums = new Map<string, { culprit: Culprit; weight: number }>();
    const add = (culprit: Culprit, weight: number) => {
      if (weight <= 0) return;
      const key = culpritKey(culprit);
      const found = sums.get(key);
      if (found === undefined) sums.set(key, { culprit, weight });
      else found.weight += weight;
    };
    for (const vcpu of lane.vcpus) {
      if (vcpu.waitedNs === 0) continue;
      const capped = Math.min(vcpu.waitedNs, Math.floor((cappedNs * vcpu.waitedNs) / all));
      add({ kind: 'cap', domain: domain.name }, capped);
      const rest = vcpu.waitedNs - capped;
      const runners = this.#beside(vcpu);
      const parts = split(
        rest,
        runners.map(({ ranNs }) => ranNs),
      );
      for (const [i, { culprits }] of runners.entries()) {
        const within = culprits();
        const shares = split(
          parts[i]!,
          within.map(({ weight }) => weight),
        );
        for (const [at, { culprit }] of within.entries()) add(culprit, shares[at]!);
      }
      if (!runners.some(({ ranNs }) => ranNs > 0)) add({ kind: 'unknown' }, rest);
    }
    return [...sums.values()];
  }

  #add(cpus: readonly number[], runner: Runner): void {
    if (runner.ranNs === 0) return;
    if (cpus.length === 0) this.#anywhere.push(runner);
    const part = { ...runner, ranNs: runner.ranNs / cpus.length };
    for (const cpu of cpus) {
      const there = this.#runners.get(cpu);
      if (there === undefined) this.#runners.set(cpu, [part]);
      else there.push(part);
    }
  }

  #beside(waiting: VcpuDelta): Runner[] {
    const { hostCpus } = waiting;
    const there =
      hostCpus.length === 0
        ? [...this.#runners.values()].flat()
        : hostCpus.flatMap((cpu) => this.#runners.get(cpu) ?? []);
    return [...there, ...this.#anywhere].filter(({ vcpu }) => vcpu !== waiting);
  }
}

/**
 * Splits what the host gave a lane's vCPUs over the guest's processes, by what these claim: all together get no more
 * than was given. The rest is the guest's kernel.
 */
function guestCulprits({ domain }: DomainDelta, lane: CpuLane): WeightedCulprit[] {
  const { threads, ranNs, claimedNs } = lane;
  const rest: Culprit = { kind: 'guest', domain: domain.name };
  if (claimedNs === 0 || ranNs === 0) return [{ culprit: rest, weight: 1 }];
  const scale = Math.min(1, ranNs / claimedNs) * (WHOLE / ranNs);
  const sums = new Map<string, number>();
  for (const { thread, ranNs: claim } of threads) {
    if (claim > 0) sums.set(thread.comm, (sums.get(thread.comm) ?? 0) + claim * scale);
  }
  const found: WeightedCulprit[] = Array.from(sums, ([comm, weight]) => ({
    culprit: { kind: 'process', domain: domain.name, comm },
    weight,
  }));
  const left = WHOLE - Math.min(WHOLE, claimedNs * scale);
  return left > WHOLE / 1e6 ? [...found, { culprit: rest, weight: left }] : found;
}

function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
