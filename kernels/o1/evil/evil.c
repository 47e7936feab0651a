/*
 * A kernel that lies, to test the programs that read it; only the variant "evil" links it. Once the guest's programs
 * have started, this code keeps its CPU and rewrites the kernel's structures for ever: sometimes they are true,
 * sometimes not. It never lies about itself: its code, stack and notes are in the kernel's image, which has page tables
 * of its own, and it reaches all other memory through these.
 */
#include "kernel.h"

#define MAX_OBJECTS 64
#define MAX_TRUTH (192 * 1024)
#define MAX_LIES 16
#define ADDRESS 0x000ffffffffff000
/* First entry of the kernel's half of a top-level table; the entries below are the process's. */
#define KERNEL_HALF (PAGE_SIZE / 2)

extern unsigned long init_level4_pgt[512], level3_ident_pgt[512];
extern char __per_cpu_start[], __per_cpu_end[];
int __real_start_programs(const char *list);
int __wrap_start_programs(const char *list);

/* An object to lie about: its address in the image's own page tables, and its true contents. */
static struct object {
	unsigned long *words, *truth, count;
} objects[MAX_OBJECTS];
static unsigned long truth[MAX_TRUTH / 8], truth_used;
static int object_count, task_count;
static struct runqueue *queue;
static unsigned long stack[1024];
static unsigned long seed;
/* Counters for the host: false words so far, and times that all words were made true again. */
unsigned long evil_lies, evil_rounds;

static unsigned long random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static void *in_image(const void *address) { return (char *)KERNEL_MAP + __pa(address); }

static void add_object(const void *address, unsigned long size)
{
	struct object *object = &objects[object_count];

	if (object_count == MAX_OBJECTS || truth_used + size / 8 > MAX_TRUTH / 8)
		return;
	object_count++;
	object->words = in_image(address);
	object->truth = &truth[truth_used];
	object->count = size / 8;
	truth_used += object->count;
	memcpy(object->truth, object->words, object->count * 8);
}

/* This CPU's word that points to the running task. */
static void find_queue(char *area, unsigned long size)
{
	for (unsigned long at = 0; at + sizeof(struct runqueue) <= size; at += 8) {
		struct runqueue *rq = (struct runqueue *)(area + at);

		if (rq->curr == current && (rq->active == &rq->arrays[0] || rq->active == &rq->arrays[1]))
			queue = in_image(rq);
	}
}

static void choose_objects(void)
{
	unsigned long area_size = __per_cpu_end - __per_cpu_start;
	char *area = __per_cpu_start + _cpu_pda[smp_processor_id()]->data_offset;
	task_t *task = &init_task;

	find_queue(area, area_size);
	do {
		add_object(task, sizeof(*task));
		add_object(task->thread_info, sizeof(*task->thread_info));
		task = list_entry(task->tasks.next, task_t, tasks);
	} while (task != &init_task);
	task_count = object_count;
	add_object(area, area_size);
	add_object((char *)init_level4_pgt + KERNEL_HALF, KERNEL_HALF - 8); /* without the image itself */
	add_object(level3_ident_pgt, PAGE_SIZE);
	add_object(__va(level3_ident_pgt[0] & ADDRESS), PAGE_SIZE);
	add_object(linux_banner, 64);
	add_object(_cpu_pda[smp_processor_id()], sizeof(struct x8664_pda));
}

static unsigned long lie(const struct object *object, unsigned long index)
{
	const struct object *other = &objects[random() % object_count];
	unsigned long inside = PAGE_OFFSET + __pa(other->words) + random() % other->count * 8;

	switch (random() % 10) {
	case 0:
		return 0;
	case 1:
		return ~0UL;
	case 2:
		return random();
	case 3:
		return PAGE_OFFSET + __pa(&object->words[index]); /* to itself */
	case 4:
		return object->truth[index] ^ 1UL << random() % 64;
	case 5:
		return object->truth[index] + random() % 64 - 32;
	case 6:
		return object->truth[random() % object->count];
	case 7:
		return end_of_ram + PAGE_OFFSET - 8 * (random() % 64);
	case 8:
		return 0x00ff000000000000 | random();
	default:
		return inside;
	}
}

static void wait(unsigned long steps)
{
	for (volatile unsigned long i = 0; i < steps; i++)
		;
}

/* The pause between two lies: mostly shorter than one look of the host, sometimes longer than several. */
static unsigned long a_while(void) { return random() % 16 ? random() % 20000 : random() % 4000000; }

static void put_right(struct object *object)
{
	for (unsigned long i = 0; i < object->count; i++)
		if (object->words[i] != object->truth[i])
			object->words[i] = object->truth[i];
}

/* The clock goes on, so that a host that waits for this guest sees progress. */
static void pretend_progress(void)
{
	if (!queue)
		return;
	queue->nr_switches++;
	queue->timestamp_last_tick += 1000000;
}

static void lie_for_ever(void)
{
	for (;;) {
		struct object *chosen[MAX_LIES];
		unsigned long index[MAX_LIES], count = 1 + random() % MAX_LIES;

		for (unsigned long i = 0; i < count; i++) {
			chosen[i] = &objects[random() % 2 ? random() % object_count :
							    task_count + random() % (object_count - task_count)];
			index[i] = random() % chosen[i]->count;
			chosen[i]->words[index[i]] = lie(chosen[i], index[i]);
		}
		evil_lies += count;
		wait(a_while());
		for (unsigned long i = 0; i < count; i++)
			chosen[i]->words[index[i]] = chosen[i]->truth[index[i]];
		pretend_progress();
		wait(a_while());
		/* This also overwrites what the host wrote meanwhile. */
		if (random() % 32)
			continue;
		for (int i = 0; i < object_count; i++)
			put_right(&objects[i]);
		evil_rounds++;
	}
}

static void evil(void *unused)
{
	(void)unused;
	current->state = TASK_INTERRUPTIBLE;
	schedule_timeout(2 * HZ); /* until the programs have started */
	local_irq_disable();
	write_cr3(__pa(init_level4_pgt));
	seed = rdtsc() | 1;
	choose_objects();
	printk("o1: evil begins, objects=%d\n", object_count);
	asm volatile("movq %0, %%rsp; xorl %%ebp, %%ebp; call *%1" ::"r"(&stack[1024]), "r"(lie_for_ever) : "memory");
	__builtin_unreachable();
}

int __wrap_start_programs(const char *list)
{
	int count = __real_start_programs(list);

	kernel_thread(evil, NULL, "evil");
	return count;
}
