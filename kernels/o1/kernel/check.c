/*
 * The guest checks its own scheduler on every tick and switch of a CPU, with the run-queue lock held. README.md lists
 * each fact that must hold and the message that is printed when it does not.
 */
#include "kernel.h"

#define MAX_TASKS 4096 /* more than ever live here: a longer walk goes in circles */

int check_strict;

/* Whether this can be the address of a kernel object; checked before it is followed. */
static int plausible(const void *pointer)
{
	unsigned long address = (unsigned long)pointer;

	return address % 8 == 0 && ((address >= PAGE_OFFSET && address - PAGE_OFFSET < end_of_ram) ||
				    (address >= KERNEL_MAP && address - KERNEL_MAP < 20UL << 21));
}

/* One link of a list, in both directions. */
static void check_link(int cpu, const char *list, int index, const struct list_head *entry)
{
	if (!plausible(entry->next) || !plausible(entry->prev))
		bug("cpu=%d %s[%d] link of %lx points outside memory", cpu, list, index, (unsigned long)entry);
	if (entry->next->prev != entry)
		bug("cpu=%d %s[%d] next->prev is not %lx", cpu, list, index, (unsigned long)entry);
	if (entry->prev->next != entry)
		bug("cpu=%d %s[%d] prev->next is not %lx", cpu, list, index, (unsigned long)entry);
}

static void check_queued_task(int cpu, const prio_array_t *array, int prio, const task_t *task, const task_t *curr)
{
	if (!plausible(task->thread_info) || task->thread_info->task != task)
		bug("cpu=%d queue[%d] holds %lx, which is no task", cpu, prio, (unsigned long)task);
	if (task->array != array)
		bug("cpu=%d pid=%d array pointer is not the array it is linked in", cpu, task->pid);
	if (task->prio != prio)
		bug("cpu=%d pid=%d prio=%d but linked in queue[%d]", cpu, task->pid, task->prio, prio);
	if (task_cpu(task) != cpu)
		bug("cpu=%d pid=%d is linked here but belongs to cpu %d", cpu, task->pid, task_cpu(task));
	if (task->state != TASK_RUNNING && task != curr && !(task->thread_info->preempt_count & PREEMPT_ACTIVE))
		bug("cpu=%d pid=%d state=%ld but queued", cpu, task->pid, task->state);
	if (check_strict) {
		if (task->static_prio < MAX_USER_RT_PRIO || task->static_prio >= MAX_PRIO)
			bug("cpu=%d pid=%d static_prio=%d out of range", cpu, task->pid, task->static_prio);
		if (task->exit_state && task != curr)
			bug("cpu=%d pid=%d exit_state=%ld but queued", cpu, task->pid, task->exit_state);
		if (!task->time_slice || task->time_slice > HZ * 8 / 10)
			bug("cpu=%d pid=%d time_slice=%u out of range", cpu, task->pid, task->time_slice);
	}
}

/* Returns how often curr is linked in the array. */
static int check_array(int cpu, const prio_array_t *array, const char *name, const task_t *curr)
{
	unsigned int linked = 0;
	int found = 0;

	for (int prio = 0; prio < MAX_PRIO; prio++) {
		const struct list_head *queue = &array->queue[prio], *entry = queue;

		if (queue->next == queue && queue->prev == queue && !test_bit(prio, array->bitmap))
			continue; /* most are empty: this is all there is to check */
		do {
			check_link(cpu, name, prio, entry);
			entry = entry->next;
			if (entry == queue)
				break;
			check_queued_task(cpu, array, prio, list_entry(entry, task_t, run_list), curr);
			found += list_entry(entry, task_t, run_list) == curr;
			if (++linked > MAX_TASKS)
				bug("cpu=%d %s[%d] has no end", cpu, name, prio);
		} while (1);
		if (test_bit(prio, array->bitmap) != !list_empty(queue))
			bug("cpu=%d %s bitmap bit %d is %d but the queue is %s", cpu, name, prio, test_bit(prio, array->bitmap),
			    list_empty(queue) ? "empty" : "not empty");
	}
	if (array->bitmap[2] >> (MAX_PRIO - 128) != 1)
		bug("cpu=%d %s bitmap delimiter is wrong: %lx", cpu, name, array->bitmap[2]);
	if (array->nr_active != linked)
		bug("cpu=%d %s nr_active=%u but %u linked", cpu, name, array->nr_active, linked);
	return found;
}

/*
 * Every living task of this CPU whose `array` is set must be linked there. A runnable task without an array is legal
 * unless checks are strict: the host has spliced it out.
 */
static void check_all_tasks(struct runqueue *rq, int cpu, const task_t *curr)
{
	unsigned long queued = 0, walked = 0;

	if (!raw_spin_trylock(&tasklist_lock))
		return; /* the list is being changed: check it next time */
	for (const struct list_head *entry = &init_task.tasks;;) {
		const task_t *task;

		check_link(cpu, "tasks", 0, entry);
		entry = entry->next;
		if (entry == &init_task.tasks)
			break;
		if (++walked > MAX_TASKS)
			bug("cpu=%d the list of all tasks has no end", cpu);
		task = list_entry(entry, task_t, tasks);
		if (task_cpu(task) != cpu)
			continue;
		if (task->array) {
			if (task->array != &rq->arrays[0] && task->array != &rq->arrays[1])
				bug("cpu=%d pid=%d array=%lx is no array of this CPU", cpu, task->pid, (unsigned long)task->array);
			queued += !task->exit_state;
		} else if (check_strict && task->state == TASK_RUNNING && task != curr && !task->exit_state) {
			bug("cpu=%d pid=%d is TASK_RUNNING but on no queue", cpu, task->pid);
		}
	}
	if (curr != rq->idle && curr->exit_state) /* a dying task may have left the list before its last switch */
		queued++;
	if (queued != rq->nr_running)
		bug("cpu=%d %lu tasks say that they are queued, nr_running=%lu", cpu, queued, rq->nr_running);
	raw_spin_unlock(&tasklist_lock);
}

/* Called with the lock held; checks that nobody has freed it meanwhile. */
void check_locked(const struct runqueue *rq, int cpu)
{
#ifdef CONFIG_SMP
	if ((int)rq->lock.raw_lock.slock > 0)
		bug("cpu=%d run-queue lock is free while held: slock=%d", cpu, (int)rq->lock.raw_lock.slock);
#else
	(void)rq, (void)cpu;
#endif
}

/* curr is the task that will run once the lock is free. Interrupts off, lock held. */
void check_runqueue(struct runqueue *rq, int cpu, task_t *curr)
{
	int found;

	check_locked(rq, cpu);
	if (rq->active == rq->expired || (rq->active != &rq->arrays[0] && rq->active != &rq->arrays[1]) ||
	    (rq->expired != &rq->arrays[0] && rq->expired != &rq->arrays[1]))
		bug("cpu=%d active=%lx expired=%lx are not the two arrays", cpu, (unsigned long)rq->active,
		    (unsigned long)rq->expired);
	found = check_array(cpu, rq->active, "active", curr) + check_array(cpu, rq->expired, "expired", curr);
	if (rq->nr_running != rq->active->nr_active + rq->expired->nr_active)
		bug("cpu=%d nr_running=%lu but %u linked", cpu, rq->nr_running, rq->active->nr_active + rq->expired->nr_active);
	if (rq->idle->array)
		bug("cpu=%d the idle task is queued", cpu);
	if (curr == rq->idle ? found != 0 : found != 1)
		bug("cpu=%d current pid=%d is linked %d times", cpu, curr->pid, found);
	if (rq->curr->thread_info->task != rq->curr)
		bug("cpu=%d curr is no task", cpu);
	check_all_tasks(rq, cpu, curr);
}
