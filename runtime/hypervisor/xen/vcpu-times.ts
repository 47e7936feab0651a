import { DomschedError } from '../../error.ts';
import type { HostClock, VcpuTime } from '../types.ts';
import type { XenCalls } from './calls.ts';

/** The domain whose kernel we run on: its CPUs are vCPUs. */
const DOM0 = 0;

/**
 * How long Xen ran each vCPU of a domain, and how long it kept one waiting. Xen counts the first and not the second: a
 * vCPU that was ready at two readings waited in between when it did not run.
 */
export function vcpuTimes(
  calls: XenCalls,
  domid: number,
  vcpus: number,
  now: () => number = () => performance.now(),
): HostClock {
  const waited = new Float64Array(vcpus);
  const before = new Map<number, { ranNs: number; ready: boolean }>();
  let readMs: number | undefined;
  const read = (): readonly VcpuTime[] | undefined => {
    const times: VcpuTime[] = [];
    const nowMs = now();
    const elapsedNs = (nowMs - (readMs ?? nowMs)) * 1e6;
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      const info = calls.vcpu(domid, vcpu);
      const ready = info?.online === true && !info.blocked;
      const ranNs = info?.ranNs ?? 0;
      const last = before.get(vcpu);
      if (ready && last?.ready) waited[vcpu]! += Math.max(0, elapsedNs - (ranNs - last.ranNs));
      before.set(vcpu, { ranNs, ready });
      times.push({ ranNs, waitedNs: waited[vcpu]!, ...(info !== undefined && { cpu: info.cpu }) });
    }
    readMs = nowMs;
    return times;
  };
  return {
    read: () => quietly(read),
    machineCpu: (cpu) => quietly(() => calls.vcpu(DOM0, cpu)?.cpu),
    close: () => {},
  };
}

function quietly<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof DomschedError) return undefined;
    throw error;
  }
}
