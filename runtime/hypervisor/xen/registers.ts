import { DomschedError } from '../../error.ts';
import type { RegisterReader, VcpuRegisters } from '../types.ts';
import type { XenCalls, XenDomainInfo } from './calls.ts';
import { HVM_CPU, PV_CONTEXT, PV_FLAGS } from './structures.ts';

/** Word size of a 64-bit guest, in bytes. */
const WIDE = 8;
/** Paging and protection, and physical address extension; a PV guest runs with them whatever its own view says. */
const PV_CR0 = 0x8000_0001n;
const PV_CR4 = 0x20n;
/** EFER of a 64-bit PV guest, which the hypervisor does not show: SCE, LME, LMA, NXE. */
const PV_EFER = 0xd01n;

/**
 * Reads registers of a domain's vCPUs in the way for its type.
 * @throws DomschedError `host-unreachable` when the hypervisor's record is not the one we know; `refused` for a 32-bit
 *   PV guest
 */
export function registerReader(calls: XenCalls, name: string, info: XenDomainInfo): RegisterReader {
  const { domid } = info;
  if (!info.hvm) {
    const width = calls.guestWidth(domid);
    if (width !== WIDE) {
      throw new DomschedError(
        'refused',
        `${name} is a ${width * 8}-bit PV guest; only 64-bit guests are handled`,
        {
          domain: name,
          width,
        },
      );
    }
  }
  // A vCPU that is down has no record; the first one is up as long as the guest is.
  if (info.hvm && info.onlineVcpus > 0 && !calls.hvmContextHasSize(domid, HVM_CPU.code, 0, HVM_CPU.size)) {
    throw new DomschedError(
      'host-unreachable',
      `${name}: Xen ${calls.version} gives registers in another form than the ${HVM_CPU.size} bytes that this program knows`,
      { domain: name, version: calls.version },
    );
  }
  const room = new Uint8Array(new ArrayBuffer(info.hvm ? HVM_CPU.size : PV_CONTEXT.size));
  const view = new DataView(room.buffer);
  return {
    async read() {
      const found: VcpuRegisters[] = [];
      const now = calls.domain(domid);
      if (now === undefined || now.dying) {
        throw new DomschedError('domain-gone', `${name} has ended`, { domain: name, domid });
      }
      for (let vcpu = 0; vcpu <= now.maxVcpuId; vcpu++) {
        const state = calls.vcpu(domid, vcpu);
        if (state === undefined || !state.online) continue;
        if (info.hvm) {
          if (!calls.hvmContext(domid, HVM_CPU.code, vcpu, room)) continue;
          found.push(hvmRegisters(view, vcpu, state.blocked));
        } else if (calls.pvContext(domid, vcpu, room)) {
          found.push(pvRegisters(view, vcpu, state.blocked));
        }
      }
      return found;
    },
  };
}

/** Registers from a `vcpu_guest_context`. */
export function pvRegisters(view: DataView, vcpu: number, halted: boolean): VcpuRegisters {
  const word = (offset: number) => view.getBigUint64(offset, true);
  const inKernel = (word(PV_CONTEXT.flags) & PV_FLAGS.inKernel) !== 0n;
  const kernelGs = word(PV_CONTEXT.gs_base_kernel);
  const userGs = word(PV_CONTEXT.gs_base_user);
  return {
    vcpu,
    cr0: word(PV_CONTEXT.ctrlreg) | PV_CR0,
    // Always the kernel's table: a 64-bit PV guest has another one for user mode, in ctrlreg[1].
    cr3: word(PV_CONTEXT.ctrlreg + 3 * 8),
    cr4: word(PV_CONTEXT.ctrlreg + 4 * 8) | PV_CR4,
    efer: PV_EFER,
    gsBase: inKernel ? kernelGs : userGs,
    kernelGsBase: inKernel ? userGs : kernelGs,
    tssBase: undefined,
    // The hypervisor has the IDT. The guest gets traps by a table of its own and interrupts by event channels.
    idtBase: 0n,
    idtLimit: 0,
    rip: word(PV_CONTEXT.rip),
    rsp: word(PV_CONTEXT.rsp),
    rflags: word(PV_CONTEXT.rflags),
    cpl: inKernel ? 0 : 3,
    halted,
  };
}

/** Registers from a `hvm_hw_cpu`. */
export function hvmRegisters(view: DataView, vcpu: number, halted: boolean): VcpuRegisters {
  const word = (offset: number) => view.getBigUint64(offset, true);
  return {
    vcpu,
    cr0: word(HVM_CPU.cr0),
    cr3: word(HVM_CPU.cr3),
    cr4: word(HVM_CPU.cr4),
    efer: word(HVM_CPU.msr_efer),
    gsBase: word(HVM_CPU.gs_base),
    kernelGsBase: word(HVM_CPU.shadow_gs),
    tssBase: word(HVM_CPU.tr_base),
    idtBase: word(HVM_CPU.idtr_base),
    idtLimit: view.getUint32(HVM_CPU.idtr_limit, true),
    rip: word(HVM_CPU.rip),
    rsp: word(HVM_CPU.rsp),
    rflags: word(HVM_CPU.rflags),
    // The descriptor privilege level of the stack segment is the CPL (Intel SDM vol. 3A, 5.5).
    cpl: (view.getUint32(HVM_CPU.ss_arbytes, true) >>> 5) & 3,
    halted,
  };
}
