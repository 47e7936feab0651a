/* How tasks end. */
#include "kernel.h"

task_t *child_reaper = &init_task;

static void exit_mm(task_t *task)
{
	struct mm_struct *mm = task->mm;
	unsigned long flags;

	if (!mm)
		return;
	__atomic_add_fetch(&mm->mm_count.counter, 1, __ATOMIC_SEQ_CST); /* its page tables are still in use here */
	flags = local_irq_save(); /* a switch looks at mm and active_mm together */
	task->mm = NULL;
	local_irq_restore(flags);
	mmput(mm);
}

void do_exit(int code)
{
	task_t *task = current, *parent;
	unsigned long flags;

	task->flags |= PF_EXITING;
	task->exit_code = code;
	exit_mm(task);
	if (task->files)
		files_put(task->files);
	task->files = NULL;

	flags = spin_lock_irqsave(&tasklist_lock);
	while (!list_empty(&task->children)) {
		task_t *child = list_entry(task->children.next, task_t, sibling);

		list_del(&child->sibling);
		child->parent = child->real_parent = child_reaper;
		list_add_tail(&child->sibling, &child_reaper->children);
		if (child->exit_state == EXIT_ZOMBIE)
			wake_up(child_waitq(child_reaper));
	}
	parent = task->parent;
	task->exit_state = EXIT_ZOMBIE;
	preempt_disable(); /* from here on this stack may be freed at the next switch, and must never come back */
	task->flags |= PF_DEAD;
	wake_up(child_waitq(parent));
	spin_unlock_irqrestore(&tasklist_lock, flags);
	schedule();
	bug("pid=%d lives on after its exit", task->pid);
}

/* Takes a dead child off all lists. Under tasklist_lock. */
static void release_task(task_t *task)
{
	sched_exit(task);
	task->exit_state = EXIT_DEAD;
	list_del(&task->tasks);
	list_del(&task->sibling);
}

/* Waits for a child to end. Returns its number, or -ECHILD without children. */
int do_wait(int *status)
{
	for (;;) {
		struct waiter waiter;
		unsigned long flags;
		task_t *dead = NULL;
		int childless;

		prepare_to_wait(child_waitq(current), &waiter);
		flags = spin_lock_irqsave(&tasklist_lock);
		childless = list_empty(&current->children);
		for (struct list_head *entry = current->children.next; entry != &current->children; entry = entry->next)
			if (list_entry(entry, task_t, sibling)->exit_state == EXIT_ZOMBIE)
				dead = list_entry(entry, task_t, sibling);
		if (dead)
			release_task(dead);
		spin_unlock_irqrestore(&tasklist_lock, flags);
		if (!dead && !childless)
			schedule();
		finish_wait(child_waitq(current), &waiter);
		if (dead) {
			int pid = dead->pid;

			*status = dead->exit_code;
			put_task_struct(dead);
			return pid;
		}
		if (childless)
			return -ECHILD;
	}
}
