import { DomschedError } from '../../error.ts';
import type { Notifier } from '../types.ts';
import type { XenCalls } from './calls.ts';
import { HVM_LAPIC } from './structures.ts';

/** Address of message-signalled interrupts; bits 12..19 take the local APIC's id (Intel SDM vol. 3A, 11.11). */
const MSI_BASE = 0xfee0_0000;
const FIRST_VECTOR = 32;
const LAST_VECTOR = 255;
const LAST_APIC_ID = 254;

/**
 * Sends interrupts to an HVM or PVH guest. A toolstack cannot send any to a PV guest, whose event channels end where
 * the guest bound them.
 * @returns undefined without libxendevicemodel
 */
export function msiNotifier(calls: XenCalls, domid: number, name: string): Notifier | undefined {
  if (!calls.canInject) return undefined;
  const page = new Uint8Array(new ArrayBuffer(HVM_LAPIC.size));
  const apicIds = new Map<number, number>();
  const apicId = (vcpu: number): number | undefined => {
    if (!apicIds.has(vcpu) && calls.hvmContext(domid, HVM_LAPIC.code, vcpu, page)) {
      apicIds.set(vcpu, new DataView(page.buffer).getUint32(HVM_LAPIC.id, true) >>> 24);
    }
    return apicIds.get(vcpu);
  };
  return {
    kind: 'msi',
    async inject(vcpu, vector) {
      const id = Number.isInteger(vcpu) && vcpu >= 0 ? apicId(vcpu) : undefined;
      const fits = Number.isInteger(vector) && vector >= FIRST_VECTOR && vector <= LAST_VECTOR;
      if (id === undefined || id > LAST_APIC_ID || !fits) {
        throw new DomschedError('usage', `${name}: no interrupt ${vector} can be sent to vCPU ${vcpu}`, {
          domain: name,
          vcpu,
          vector,
        });
      }
      calls.injectMsi(domid, MSI_BASE + id * 0x1000, vector);
    },
  };
}
