/*
 * The first instructions: QEMU enters in 32-bit protected mode at the address of the PVH note (Xen's
 * include/public/arch-x86/hvm/start_info.h), with the physical address of the start information in ebx.
 */
#include "defs.h"
#define phys(symbol) (symbol - KERNEL_MAP)

	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 8, 18				/* name size, value size, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad phys(pvh_start)

	.section .text.head, "ax"
	.code32
	.globl pvh_start
pvh_start:
	cli
	cld
	movl	%ebx, phys(pvh_start_info)
	lgdt	phys(boot_gdt_pointer)
	movl	$phys(boot_level4_pgt), %eax
	movl	%eax, %cr3
	movl	$0x20, %eax			/* physical address extension */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx		/* EFER: long mode, SYSCALL */
	movl	$0x101, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$0x80010033, %eax		/* paging, write protection, no FPU emulation, protected mode */
	movl	%eax, %cr0
	ljmp	$KERNEL_CS, $phys(long_mode)

	.code64
long_mode:
	xorl	%eax, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movq	$init_thread_union + THREAD_SIZE, %rsp
	movq	$start_kernel, %rax		/* absolute: leave the identity map */
	pushq	$0
	jmp	*%rax

/*
 * An application processor starts here in real mode, at TRAMPOLINE, where smp_boot_cpus() has copied this code. It
 * goes straight to long mode (paging and protection switched on at once) on the boot page tables.
 */
	.globl trampoline_start, trampoline_end
#define low(symbol) (symbol - trampoline_start + TRAMPOLINE)
	.code16
trampoline_start:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ds
	movl	$phys(boot_level4_pgt), %eax
	movl	%eax, %cr3
	movl	$0x20, %eax
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx
	movl	$0x101, %eax
	xorl	%edx, %edx
	wrmsr
	lgdtl	low(trampoline_gdt)
	movl	$0x80010033, %eax
	movl	%eax, %cr0
	ljmpl	$KERNEL_CS, $low(trampoline_long)
	.code64
trampoline_long:
	xorl	%eax, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movq	initial_stack, %rsp
	movq	$start_secondary, %rax
	pushq	$0
	jmp	*%rax
	.balign 4
trampoline_gdt:
	.word	31
	.long	phys(boot_gdt)
trampoline_end:

	.data
	.balign 16
boot_gdt:
	.quad	0, 0, 0x00af9a000000ffff, 0x00cf92000000ffff
boot_gdt_pointer:
	.word	31
	.long	phys(boot_gdt)
	.globl pvh_start_info
pvh_start_info:
	.quad	0

/* Page tables. 0x63: table, present, writable; 0xe3: 2 MiB page; 0xfb: uncached 2 MiB page. */
	.section .data.page_aligned, "aw"
	.balign 4096
	/* The kernel's own top level, and what every process's top level is made from. */
	.globl init_level4_pgt
init_level4_pgt:
	.fill	258, 8, 0
	.quad	phys(level3_ident_pgt) + 0x63	/* PAGE_OFFSET */
	.fill	252, 8, 0
	.quad	phys(level3_kernel_pgt) + 0x63	/* KERNEL_MAP */
	/* The same with low addresses mapped as they are, for processors that just start. */
	.globl boot_level4_pgt
boot_level4_pgt:
	.quad	phys(level3_ident_pgt) + 0x63
	.fill	257, 8, 0
	.quad	phys(level3_ident_pgt) + 0x63
	.fill	252, 8, 0
	.quad	phys(level3_kernel_pgt) + 0x63
	.globl level3_ident_pgt
level3_ident_pgt:
	.quad	phys(level2_ident_pgt) + 0x63
	.fill	511, 8, 0
level3_kernel_pgt:
	.fill	510, 8, 0
	.quad	phys(level2_kernel_pgt) + 0x63
	.quad	phys(level2_fixmap_pgt) + 0x63
	.globl level2_ident_pgt
level2_ident_pgt:				/* the first GiB */
	i = 0
	.rept	512
	.quad	(i << 21) + 0xe3
	i = i + 1
	.endr
level2_kernel_pgt:				/* 40 MiB for the kernel image, as in 2.6.16 */
	i = 0
	.rept	20
	.quad	(i << 21) + 0xe3
	i = i + 1
	.endr
	.fill	492, 8, 0
level2_fixmap_pgt:
	.fill	511, 8, 0
	.quad	APIC_PHYSICAL + 0xfb
	.section .note.GNU-stack, "", @progbits
