/* Constants shared by C and assembler. Values are those of Linux 2.6.16 on x86-64. */
#pragma once

#define KERNEL_MAP 0xffffffff80000000 /* kernel image: physical = virtual - KERNEL_MAP */
#define PAGE_OFFSET 0xffff810000000000 /* direct map of all RAM */
#define APIC_BASE 0xffffffffffe00000 /* fixed mapping of the local APIC's 2 MiB page */
#define APIC_PHYSICAL 0xfee00000
#define TRAMPOLINE 0x8000 /* where an application processor starts, below 1 MiB */

#define PAGE_SIZE 4096
#define THREAD_SIZE 8192
#define PDA_STACKOFFSET 40 /* x8664_pda.kernelstack leaves room for the five words of an interrupt frame */

#define KERNEL_CS 0x10
#define KERNEL_DS 0x18
#define USER32_CS 0x23
#define USER_DS 0x2b
#define USER_CS 0x33
#define TSS_SELECTOR 0x40

#define TIF_NEED_RESCHED 3
#define TIF_NEED_RESCHED_MASK (1 << TIF_NEED_RESCHED)

#define RESCHEDULE_VECTOR 0xfd
#define LOCAL_TIMER_VECTOR 0xef
#define SPURIOUS_VECTOR 0xff
#define NMI_VECTOR 2
