/* The programs that are part of the image, and how the command line starts them. */
#include "kernel.h"
#include "../user/program.h"

extern const char pi_start[], pi_end[], sleeper_start[], sleeper_end[], pair_start[], pair_end[], forker_start[], forker_end[];

static const struct program {
	const char *name, *start, *end;
} programs[] = {
	{ "pi", pi_start, pi_end },
	{ "sleeper", sleeper_start, sleeper_end },
	{ "pair", pair_start, pair_end },
	{ "forker", forker_start, forker_end },
};

struct launch {
	const struct program *program;
	struct program_arguments arguments;
	int nice, cpu;
};

static struct kmem_cache launch_cachep = KMEM_CACHE(struct launch);

/* A program's name may be followed by digits: pi2 is a pi. */
static const struct program *find_program(const char *name, unsigned long length)
{
	while (length && name[length - 1] >= '0' && name[length - 1] <= '9')
		length--;
	for (const struct program *p = programs; p < programs + sizeof(programs) / sizeof(*programs); p++)
		if (strlen(p->name) == length && !strncmp(p->name, name, length))
			return p;
	return NULL;
}

/* In the new thread: makes its memory and sets the registers it goes to user mode with. */
static void exec(void *argument)
{
	struct launch *launch = argument;
	const struct program *program = launch->program;
	struct mm_struct *mm = mm_alloc(), *borrowed;
	struct pt_regs *regs = (struct pt_regs *)(current->thread.rsp0 - sizeof(*regs));
	unsigned long arguments = USER_STACK_TOP - sizeof(launch->arguments), flags;

	for (const char *from = program->start; from < program->end; from += PAGE_SIZE) {
		void *page = alloc_pages(0);

		memcpy(page, from, min(program->end - from, PAGE_SIZE));
		map_user_page(mm->pgd, USER_TEXT + (from - program->start), page);
	}
	for (int i = 1; i <= USER_STACK_PAGES; i++)
		map_user_page(mm->pgd, USER_STACK_TOP - i * PAGE_SIZE, alloc_pages(0));
	mm->start_code = USER_TEXT;
	mm->end_code = USER_TEXT + (program->end - program->start);
	mm->start_stack = arguments;

	flags = local_irq_save(); /* a switch looks at mm and active_mm together */
	borrowed = current->active_mm;
	current->mm = current->active_mm = mm;
	write_pda(active_mm, mm);
	write_cr3(__pa(mm->pgd));
	local_irq_restore(flags);
	mmdrop(borrowed);

	current->files = files_alloc();
	copy_user(&launch->arguments, arguments, sizeof(launch->arguments), 1);
	set_user_nice(current, launch->nice);
	if (launch->cpu >= 0 && set_cpus_allowed(current, 1UL << launch->cpu))
		printk("o1: no CPU %d for %s\n", launch->cpu, current->comm);
	kmem_free(&launch_cachep, launch);
	*regs = (struct pt_regs){ .rip = USER_TEXT, .cs = USER_CS, .eflags = 0x202, .rsp = arguments, .ss = USER_DS,
				  .rdi = arguments };
}

/*
 * Starts the programs of a list: NAME[:NICE][@CPU][/NUMBER]..., separated by commas, up to the next space. Returns
 * how many were started.
 */
int start_programs(const char *list)
{
	const char *report = command_line_option("report=");
	int count = 0;

	while (*list && *list != ' ') {
		struct launch *launch = kmem_alloc(&launch_cachep);
		const char *name = list;
		unsigned long length = 0;

		while (list[length] && !(list[length] == ':' || list[length] == '@' || list[length] == '/' ||
					 list[length] == ',' || list[length] == ' '))
			length++;
		list += length;
		launch->program = find_program(name, length);
		memcpy(launch->arguments.name, name, min(length, sizeof(launch->arguments.name) - 1));
		launch->arguments.report_ms = report ? simple_strtol(report, NULL) : 250;
		launch->cpu = -1;
		if (*list == ':') {
			long nice = simple_strtol(list + 1, &list);

			launch->nice = min(max(nice, -20), 19);
		}
		if (*list == '@')
			launch->cpu = simple_strtol(list + 1, &list);
		while (*list == '/' && launch->arguments.count < PROGRAM_NUMBERS)
			launch->arguments.numbers[launch->arguments.count++] = simple_strtol(list + 1, &list);
		if (launch->program) {
			kernel_thread(exec, launch, launch->arguments.name);
			count++;
		} else {
			printk("o1: no program %s\n", launch->arguments.name);
		}
		while (*list && *list != ',' && *list != ' ')
			list++;
		list += *list == ',';
	}
	return count;
}
