/**
 * Offsets in Xen's public structures, in bytes. Those named here are the same in every release from 4.11 to 4.21,
 * because structures grew only at their ends. `test/runtime/hypervisor/xen-structures.test.ts` compares each with the
 * installed headers, and {@link probeDomainInfo} with the running hypervisor.
 */

/** struct xen_domctl_getdomaininfo (public/domctl.h). */
export const DOMAIN_INFO = {
  domain: 0,
  flags: 4,
  tot_pages: 8,
  cpu_time: 56,
  nr_online_vcpus: 64,
  max_vcpu_id: 68,
  handle: 76,
} as const;
/** Its sizes, until 4.15 and since 4.16 (`gpaddr_bits`). */
export const DOMAIN_INFO_SIZES: readonly number[] = [104, 112];

/** XEN_DOMINF_* (public/domctl.h). */
export const DOMAIN_FLAGS = {
  dying: 1 << 0,
  hvm: 1 << 1,
  shutdown: 1 << 2,
  paused: 1 << 3,
  xenstore: 1 << 7,
} as const;
/** Place of a shutdown's reason in the flags, and the reasons (SHUTDOWN_*, public/sched.h). */
export const SHUTDOWN_SHIFT = 16;
export const SHUTDOWN_MASK = 255;
export const SHUTDOWN_REASON = { suspend: 2, crash: 3, watchdog: 4 } as const;

/** struct xen_domctl_getvcpuinfo (public/domctl.h). */
export const VCPU_INFO = { size: 24, online: 4, blocked: 5, cpu_time: 8, cpu: 16 } as const;

/** struct vcpu_guest_context of x86-64 (public/arch-x86/xen.h). */
export const PV_CONTEXT = {
  size: 5168,
  flags: 512,
  rip: 648,
  rflags: 664,
  rsp: 672,
  ctrlreg: 4984,
  gs_base_kernel: 5152,
  gs_base_user: 5160,
} as const;
/** VGCF_in_kernel and VGCF_online. */
export const PV_FLAGS = { inKernel: 1n << 2n, online: 1n << 5n } as const;

/** struct hvm_hw_cpu (public/arch-x86/hvm/save.h), up to the last member that we read. */
export const HVM_CPU = {
  code: 2,
  size: 1032,
  rsp: 568,
  rip: 640,
  rflags: 648,
  cr0: 656,
  cr3: 672,
  cr4: 680,
  idtr_limit: 800,
  gs_base: 840,
  tr_base: 856,
  idtr_base: 872,
  ss_arbytes: 908,
  shadow_gs: 944,
  msr_efer: 992,
} as const;
/** struct hvm_hw_lapic_regs: the register page of a local APIC, with its id at 0x20 (Intel SDM vol. 3A, 11.4.1). */
export const HVM_LAPIC = { code: 6, size: 1024, id: 0x20 } as const;

/** struct xen_domctl_sched_credit, struct xen_domctl_sched_credit2: two 16-bit words each. */
export const SCHED_CREDIT = { size: 4, weight: 0, cap: 2 } as const;
/** XEN_SCHEDULER_* (public/domctl.h). */
export const SCHEDULERS: Readonly<Record<number, string>> = {
  5: 'credit',
  6: 'credit2',
  7: 'arinc653',
  8: 'rtds',
  9: 'null',
};
