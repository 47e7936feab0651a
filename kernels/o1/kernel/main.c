/* From the first C code to the first process. */
#include "kernel.h"

#define LINE_LENGTH 512
#define START_MAGIC 0x336ec578

/* Xen's include/public/arch-x86/hvm/start_info.h */
struct hvm_start_info {
	unsigned int magic, version, flags, nr_modules;
	unsigned long modlist, cmdline, rsdp, memmap;
	unsigned int memmap_entries, reserved;
};
struct hvm_memmap_entry {
	unsigned long addr, size;
	unsigned int type, reserved;
};

extern unsigned long pvh_start_info;
extern char _end[], _text[];
void setup_per_cpu_areas(void);

char saved_command_line[LINE_LENGTH];
#ifdef CONFIG_SMP
#define SMP_WORD " SMP"
#else
#define SMP_WORD ""
#endif
#ifdef CONFIG_PREEMPT
#define PREEMPT_WORD " PREEMPT"
#else
#define PREEMPT_WORD ""
#endif
const char linux_banner[] = "Linux version 2.6.16.33" CONFIG_LOCALVERSION " (domsched@o1-guest) (gcc version " __VERSION__
			    ") #1" SMP_WORD PREEMPT_WORD " domsched O(1) guest, not Linux\n";

/* What follows a word such as "run=" on the command line, or NULL. */
const char *command_line_option(const char *name)
{
	unsigned long length = strlen(name);

	for (const char *at = saved_command_line; *at; at++)
		if ((at == saved_command_line || at[-1] == ' ') && !strncmp(at, name, length))
			return at + length;
	return NULL;
}

static void read_start_info(void)
{
	const struct hvm_start_info *info = __va(pvh_start_info);
	const struct hvm_memmap_entry *map = __va(info->memmap);
	const char *line = __va(info->cmdline);

	if (info->magic != START_MAGIC || !info->version)
		bug("no PVH start information with a memory map");
	if (info->cmdline)
		for (int i = 0; i < LINE_LENGTH - 1 && line[i]; i++)
			saved_command_line[i] = line[i];
	for (unsigned int i = 0; i < info->memmap_entries; i++) {
		unsigned long start = map[i].addr, end = start + map[i].size;

		if (map[i].type != 1 || end <= 0x100000)
			continue;
		if (start < __pa(_end) && end > __pa(_text))
			start = __pa(_end);
		add_memory(start, end);
	}
}

/* Prints the state of every task. */
static void show_tasks(void)
{
	unsigned long flags = spin_lock_irqsave(&tasklist_lock);

	for (struct list_head *entry = init_task.tasks.next; entry != &init_task.tasks; entry = entry->next) {
		task_t *task = list_entry(entry, task_t, tasks);

		printk("task pid=%d comm=%s cpu=%d nice=%d state=%ld ticks=%lu voluntary=%lu involuntary=%lu\n", task->pid, task->comm,
		       task_cpu(task), PRIO_TO_NICE(task->static_prio), task->state, task->utime + task->stime, task->nvcsw,
		       task->nivcsw);
	}
	spin_unlock_irqrestore(&tasklist_lock, flags);
}

static void power_off(void)
{
	outw(0x604, 0x2000); /* QEMU's ACPI: sleep state 5 */
	for (;;)
		safe_halt();
}

/* Powers off after the seconds that "stop=" gives. */
static void stop_later(void *unused)
{
	(void)unused;
	current->state = TASK_INTERRUPTIBLE;
	schedule_timeout(simple_strtol(command_line_option("stop="), NULL) * HZ);
	show_tasks();
	printk("o1: end of run, t=%lu\n", jiffies * (1000 / HZ));
	power_off();
}

/* Process 1: starts the programs and waits for dead ones. */
static void init(void *unused)
{
	const char *list = command_line_option("run=");
	int status, count;

	(void)unused;
	child_reaper = current;
	smp_boot_cpus();
	setup_local_apic();
	count = start_programs(list ? list : "pi1,pi2,sleeper,pair,forker");
	if (command_line_option("stop="))
		kernel_thread(stop_later, NULL, "stop");
	printk("o1: boot complete, cpus=%d ram=%luMiB programs=%d t=%lu\n", num_online_cpus, end_of_ram >> 20, count,
	       jiffies * (1000 / HZ));
	for (;;) {
		if (do_wait(&status) != -ECHILD)
			continue;
		current->state = TASK_INTERRUPTIBLE;
		schedule_timeout(HZ);
	}
}


void start_kernel(void)
{
	cpu_init(0, &init_task);
	init_task.thread.rsp0 = (unsigned long)&init_thread_union + THREAD_SIZE;
	trap_init();
	serial_init();
	printk("%s", linux_banner);
	read_start_info();
	printk("Command line: %s\n", saved_command_line);
	map_all_memory();
	setup_per_cpu_areas();
	fork_init();
	sched_init();
	check_strict = command_line_option("strict") != NULL;
	calibrate();
	kernel_thread(init, NULL, "init");
	local_irq_enable();
	cpu_idle();
}
