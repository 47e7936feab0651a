import { DomschedError } from '../error.ts';
import type { CapabilityName, Domain, DomainWith } from './types.ts';

const EXPLANATIONS: Readonly<Record<CapabilityName, string>> = {
  pause: 'it cannot be paused',
  registers: 'its registers cannot be read; give an ELF core instead of raw memory',
  writeFrames: 'it is read only',
  scheduler:
    'it has no weight or cap that we can set; a QEMU machine needs a control group (cpu controller) to itself, Xen the scheduler credit or credit2',
  notify:
    'no interrupt can be sent to it; for QEMU add qtest=unix:PATH to --connect, for Xen libxendevicemodel has to be there',
};

/**
 * Narrows a domain to one that has all of `names`.
 * @throws DomschedError `capability-missing` with `details.capability`
 */
export function requireCapabilities<C extends CapabilityName>(
  domain: Domain,
  ...names: readonly C[]
): asserts domain is DomainWith<C> {
  for (const capability of names) {
    if (domain[capability] !== undefined) continue;
    const { name, hypervisor } = domain.identity;
    throw new DomschedError('capability-missing', `${name} (${hypervisor}): ${EXPLANATIONS[capability]}`, {
      domain: name,
      capability,
    });
  }
}
