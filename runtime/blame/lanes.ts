import type { DomainDelta, ThreadDelta, VcpuDelta } from './delta.ts';

/** vCPUs of a domain, and the guest's threads that share them. */
export interface CpuLane {
  readonly vcpus: readonly VcpuDelta[];
  readonly threads: readonly ThreadDelta[];
  /** What the host gave, and what it withheld while the guest wanted it. */
  readonly ranNs: number;
  readonly waitedNs: number;
  /** CPU time that the guest's threads say they had. A guest may include time in which its vCPU waited. */
  readonly claimedNs: number;
}

/**
 * One lane for each CPU of the guest, where the host tells its vCPUs apart; otherwise one for all of them. The kernel
 * numbers its CPUs in the order in which they came, and so does the hypervisor unless CPUs were unplugged.
 */
export function lanesOf({ domain, vcpus, threads }: DomainDelta): CpuLane[] {
  const numbers = new Set(vcpus.map(({ vcpu }) => vcpu.vcpu));
  const isTold = vcpus.length === domain.cpus.length && domain.cpus.every((cpu) => numbers.has(cpu));
  if (!isTold || vcpus.length <= 1) return [lane(vcpus, threads)];
  // A thread on a CPU that the kernel does not have is a lie, and is not lost for that.
  const first = vcpus[0]!.vcpu.vcpu;
  const byCpu = Map.groupBy(threads, ({ thread }) => (numbers.has(thread.cpu) ? thread.cpu : first));
  return vcpus.map((vcpu) => lane([vcpu], byCpu.get(vcpu.vcpu.vcpu) ?? []));
}

function lane(vcpus: readonly VcpuDelta[], threads: readonly ThreadDelta[]): CpuLane {
  return {
    vcpus,
    threads,
    ranNs: sum(vcpus.map(({ ranNs }) => ranNs)),
    waitedNs: sum(vcpus.map(({ waitedNs }) => waitedNs)),
    claimedNs: sum(threads.map(({ ranNs }) => ranNs)),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}
