/* Descriptor tables of each CPU, and what happens on an interrupt or exception. */
#include "kernel.h"

struct tss {
	unsigned int reserved;
	unsigned long rsp[3], reserved2, ist[7], reserved3;
	unsigned short reserved4, io_bitmap;
} __attribute__((packed));

struct gate {
	unsigned short offset_low, selector;
	unsigned char ist, type;
	unsigned short offset_middle;
	unsigned int offset_high, zero;
};

struct table_pointer {
	unsigned short size;
	const void *address;
} __attribute__((packed));

static unsigned long gdt_table[NR_CPUS][16] __attribute__((aligned(64)));
static struct tss init_tss[NR_CPUS] __attribute__((aligned(64)));
/* NMI and double fault have a stack of their own: they may come when rsp is the user's. */
static unsigned char exception_stacks[NR_CPUS][PAGE_SIZE] __attribute__((aligned(16)));
struct gate idt_table[256] __attribute__((aligned(4096)));
extern char interrupt_stubs[], system_call[];

void trap_init(void)
{
	for (int vector = 0; vector < 256; vector++) {
		unsigned long address = (unsigned long)interrupt_stubs + vector * 16;
		idt_table[vector] = (struct gate){ address, KERNEL_CS, vector == NMI_VECTOR || vector == 8, 0x8e,
						   address >> 16, address >> 32, 0 };
	}
}

/* Makes this CPU able to run C on its PDA and to take interrupts; idle is its current task from now on. */
void cpu_init(int cpu, task_t *idle)
{
	struct x8664_pda *pda = _cpu_pda[cpu];
	struct tss *tss = &init_tss[cpu];
	unsigned long base = (unsigned long)tss, *gdt = gdt_table[cpu];
	struct table_pointer gdt_pointer = { sizeof(gdt_table[cpu]) - 1, gdt };
	struct table_pointer idt_pointer = { sizeof(idt_table) - 1, idt_table };

	gdt[KERNEL_CS / 8] = 0x00af9a000000ffff;
	gdt[KERNEL_DS / 8] = 0x00cf92000000ffff;
	gdt[USER32_CS / 8] = 0x00cffa000000ffff;
	gdt[USER_DS / 8] = 0x00cff2000000ffff;
	gdt[USER_CS / 8] = 0x00affa000000ffff;
	gdt[TSS_SELECTOR / 8] = 0x0000890000000000 | (sizeof(*tss) - 1) | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
	gdt[TSS_SELECTOR / 8 + 1] = base >> 32;
	tss->ist[0] = (unsigned long)(exception_stacks[cpu] + PAGE_SIZE);
	tss->io_bitmap = sizeof(*tss);

	pda->pcurrent = idle;
	pda->cpunumber = cpu;
	pda->irqcount = -1;
	pda->active_mm = &init_mm;
	pda->kernelstack = (unsigned long)idle->thread_info + THREAD_SIZE - PDA_STACKOFFSET;
	asm volatile("lgdt %0; lidt %1" ::"m"(gdt_pointer), "m"(idt_pointer) : "memory");
	asm volatile("mov %0, %%ss; mov %1, %%fs; mov %1, %%gs; ltr %w2" ::"r"(KERNEL_DS), "r"(0), "r"(TSS_SELECTOR) : "memory");
	wrmsr(0xc0000101, (unsigned long)pda); /* GS base: the PDA while in the kernel */
	wrmsr(0xc0000102, 0); /* what SWAPGS gives to user mode */
	wrmsr(0xc0000081, (unsigned long)USER32_CS << 48 | (unsigned long)KERNEL_CS << 32); /* STAR */
	wrmsr(0xc0000082, (unsigned long)system_call); /* LSTAR */
	wrmsr(0xc0000084, 0x700); /* FMASK: traps, interrupts and direction off */
	write_cr3(__pa(init_mm.pgd));
}

/* The second half of switch_to(), on next's stack. */
task_t *__switch_to(task_t *prev, task_t *next)
{
	init_tss[smp_processor_id()].rsp[0] = next->thread.rsp0;
	write_pda(kernelstack, (unsigned long)next->thread_info + THREAD_SIZE - PDA_STACKOFFSET);
	write_pda(pcurrent, next);
	return prev;
}

static void exception(unsigned int vector, struct pt_regs *regs)
{
	if (!(regs->cs & 3))
		bug("cpu=%d exception %u error=%lx rip=%lx rsp=%lx cr2=%lx pid=%d", smp_processor_id(), vector, regs->orig_rax,
		    regs->rip, regs->rsp, read_cr2(), current->pid);
	printk("%s pid=%d: exception %u error=%lx rip=%lx cr2=%lx\n", current->comm, current->pid, vector, regs->orig_rax,
	       regs->rip, read_cr2());
	local_irq_enable();
	do_exit(vector);
}

void do_interrupt(unsigned int vector, struct pt_regs *regs)
{
	if (vector == NMI_VECTOR) /* only stop_other_cpus() sends it */
		for (;;)
			asm volatile("cli; hlt");
	if (vector < 32) {
		exception(vector, regs);
		return;
	}
	current_thread_info()->preempt_count += HARDIRQ_OFFSET;
	if (vector == LOCAL_TIMER_VECTOR) {
		apic_eoi();
		timer_tick(regs);
	} else if (vector == RESCHEDULE_VECTOR) {
		apic_eoi(); /* its sender has set TIF_NEED_RESCHED, which the return path checks */
	}
	current_thread_info()->preempt_count -= HARDIRQ_OFFSET;
}
