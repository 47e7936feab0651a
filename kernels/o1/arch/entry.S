/* Ways into the kernel and out of it. Every entry saves all registers as a struct pt_regs. */
#include "autoconf.h"
#include "defs.h"
#include "offsets.h"

#define THREAD_RSP (task_struct_thread_OFFSET + thread_struct_rsp_OFFSET)
#define REGS_CS 136
#define REGS_EFLAGS 144

	.macro	SAVE_REST
	pushq	%rsi
	pushq	%rdx
	pushq	%rcx
	pushq	%rax
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%rbx
	pushq	%rbp
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	.endm

	.macro	RESTORE_ALL
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbp
	popq	%rbx
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rax
	popq	%rcx
	popq	%rdx
	popq	%rsi
	popq	%rdi
	addq	$8, %rsp			/* orig_rax */
	.endm

	.macro	GET_THREAD_INFO register
	movq	%rsp, \register
	andq	$-THREAD_SIZE, \register
	.endm

	.text
	.globl system_call
system_call:					/* SYSCALL: return address in rcx, flags in r11, interrupts off */
	swapgs
	movq	%rsp, %gs:x8664_pda_oldrsp_OFFSET
	movq	%gs:x8664_pda_kernelstack_OFFSET, %rsp
	movq	%rcx, 0(%rsp)
	movq	$USER_CS, 8(%rsp)
	movq	%r11, 16(%rsp)
	movq	%gs:x8664_pda_oldrsp_OFFSET, %rcx
	movq	%rcx, 24(%rsp)
	movq	$USER_DS, 32(%rsp)
	pushq	%rax
	pushq	%rdi
	SAVE_REST
	sti
	movq	%rsp, %rdi
	call	do_syscall
ret_to_user:
	cli
	GET_THREAD_INFO %rcx
	testl	$TIF_NEED_RESCHED_MASK, thread_info_flags_OFFSET(%rcx)
	jz	1f
	sti
	call	schedule
	jmp	ret_to_user
1:	RESTORE_ALL
	swapgs
	iretq

/* One stub for each vector: the vector goes to rdi, whose value has gone where struct pt_regs has it. */
	.balign	16
	.globl interrupt_stubs
interrupt_stubs:
	vector = 0
	.rept	256
	.balign	16
	.if	!(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	pushq	$0				/* where other exceptions have their error code */
	.endif
	pushq	%rdi
	movl	$vector, %edi
	jmp	common_interrupt
	vector = vector + 1
	.endr

common_interrupt:
	SAVE_REST
	cld
	testb	$3, REGS_CS(%rsp)
	jz	1f
	swapgs
1:	movq	%rsp, %rsi
	call	do_interrupt
	cli
	testb	$3, REGS_CS(%rsp)
	jnz	ret_to_user
#ifdef CONFIG_PREEMPT
	GET_THREAD_INFO %rcx
	cmpl	$0, thread_info_preempt_count_OFFSET(%rcx)
	jnz	1f
	testl	$TIF_NEED_RESCHED_MASK, thread_info_flags_OFFSET(%rcx)
	jz	1f
	testl	$0x200, REGS_EFLAGS(%rsp)	/* interrupts were off: not a place to be preempted */
	jz	1f
	call	preempt_schedule_irq
1:
#endif
	RESTORE_ALL
	iretq

/* task_t *switch_to(prev, next): called on prev's stack, returns on next's, with prev as its value. */
	.globl	switch_to
switch_to:
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, THREAD_RSP(%rdi)
	movq	THREAD_RSP(%rsi), %rsp
	call	__switch_to
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret

/* The first thing a new task does. rbx: kernel function to call before user mode, or 0; r12: its argument. */
	.globl	ret_from_fork
ret_from_fork:
	movq	%rax, %rdi
	call	schedule_tail
	testq	%rbx, %rbx
	jz	ret_to_user
	movq	%r12, %rdi
	call	*%rbx
	jmp	ret_to_user
	.section .note.GNU-stack, "", @progbits
