/* Per-CPU areas, and starting the application processors one after another. */
#include "kernel.h"

static struct x8664_pda boot_cpu_pda CACHE_ALIGNED_IN_SMP;
struct x8664_pda *_cpu_pda[NR_CPUS] = { &boot_cpu_pda };
unsigned int num_online_cpus = 1;
unsigned long initial_stack;
extern char __per_cpu_start[], __per_cpu_end[], trampoline_start[], trampoline_end[];

#ifdef CONFIG_SMP
static volatile int cpu_callin;

/* Gives a CPU its own copy of all per-CPU variables. */
static void setup_per_cpu_area(int cpu)
{
	unsigned long size = __per_cpu_end - __per_cpu_start;
	char *area = alloc_pages(1);

	if (size > 2 * PAGE_SIZE)
		bug("per-CPU data of %lu bytes do not fit", size);
	memcpy(area, __per_cpu_start, size);
	_cpu_pda[cpu]->data_offset = area - __per_cpu_start;
}

/* How many CPUs QEMU has: fw_cfg item 5 (docs/specs/fw_cfg.txt). */
static int possible_cpus(void)
{
	int count;

	outw(0x510, 5);
	count = inb(0x511);
	count |= inb(0x511) << 8;
	return max(1, min(count, NR_CPUS));
}

void start_secondary(void)
{
	int cpu = num_online_cpus;

	cpu_init(cpu, container_of((void *)(initial_stack - THREAD_SIZE), union thread_union, thread_info)->thread_info.task);
	setup_local_apic();
	cpu_callin = 1;
	cpu_idle();
}

/* All per-CPU areas exist before the scheduler uses them; CPUs that do not exist get none. */
void setup_per_cpu_areas(void)
{
	int count = possible_cpus();

	for (int cpu = 0; cpu < count; cpu++) {
		if (cpu)
			_cpu_pda[cpu] = alloc_pages(0);
		setup_per_cpu_area(cpu);
	}
}

/* Local APIC numbers are taken to be the CPU numbers, which holds for one socket of up to 8 cores. */
void smp_boot_cpus(void)
{
	memcpy(__va(TRAMPOLINE), trampoline_start, trampoline_end - trampoline_start);
	for (int cpu = 1; cpu < NR_CPUS && _cpu_pda[cpu]; cpu++) {
		task_t *idle = fork_idle(cpu);

		initial_stack = (unsigned long)idle->thread_info + THREAD_SIZE;
		cpu_callin = 0;
		start_cpu(cpu, TRAMPOLINE);
		while (!cpu_callin)
			cpu_relax();
		num_online_cpus++;
	}
}
#else
void start_secondary(void) { }
void setup_per_cpu_areas(void) { }
void smp_boot_cpus(void) { }
#endif
