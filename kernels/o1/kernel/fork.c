/* How tasks begin. */
#include "kernel.h"

union thread_union init_thread_union __attribute__((section(".data.init_task"), aligned(THREAD_SIZE))) = {
	.thread_info = { .task = &init_task },
};
static struct sighand_struct init_sighand = { .count = { 1 } };
static struct signal_struct init_signals = { .count = { 1 }, .live = { 1 } };
struct task_struct init_task = {
	.thread_info = &init_thread_union.thread_info,
	.usage = { 2 },
	.prio = NICE_TO_PRIO(0),
	.static_prio = NICE_TO_PRIO(0),
	.run_list = { &init_task.run_list, &init_task.run_list },
	.cpus_allowed = { { ~0UL } },
	.time_slice = HZ,
	.tasks = { &init_task.tasks, &init_task.tasks },
	.active_mm = &init_mm,
	.real_parent = &init_task,
	.parent = &init_task,
	.children = { &init_task.children, &init_task.children },
	.sibling = { &init_task.sibling, &init_task.sibling },
	.group_leader = &init_task,
	.comm = "swapper",
	.signal = &init_signals,
	.sighand = &init_sighand,
};

spinlock_t tasklist_lock = SPIN_LOCK_UNLOCKED; /* protects the lists `tasks`, `children` and `sibling` of all tasks */
struct kmem_cache task_struct_cachep = KMEM_CACHE(struct task_struct), mm_cachep = KMEM_CACHE(struct mm_struct);
static struct kmem_cache sighand_cachep = KMEM_CACHE(struct sighand_struct);
static struct kmem_cache signal_cachep = KMEM_CACHE(struct signal_struct);
static int last_pid;

_Static_assert(sizeof(struct waitq) == sizeof(wait_queue_head_t), "wait queue head");
struct waitq *child_waitq(task_t *task) { return (struct waitq *)&task->signal->wait_chldexit; }

struct mm_struct *mm_alloc(void)
{
	struct mm_struct *mm = kmem_alloc(&mm_cachep);

	mm->mm_users.counter = mm->mm_count.counter = 1;
	mm->pgd = pgd_alloc();
	mm->task_size = 1UL << 47;
	mm->page_table_lock = SPIN_LOCK_UNLOCKED;
	INIT_LIST_HEAD(&mm->mmlist);
	return mm;
}

/* Drops a reference to the page tables; a CPU may have kept the last one. */
void mmdrop(struct mm_struct *mm)
{
	if (__atomic_sub_fetch(&mm->mm_count.counter, 1, __ATOMIC_SEQ_CST))
		return;
	pgd_free(mm->pgd);
	kmem_free(&mm_cachep, mm);
}

/* Drops a process's use of this memory. */
void mmput(struct mm_struct *mm)
{
	if (__atomic_sub_fetch(&mm->mm_users.counter, 1, __ATOMIC_SEQ_CST))
		return;
	free_user_pages(mm->pgd);
	mmdrop(mm);
}

void put_task_struct(task_t *task)
{
	if (__atomic_sub_fetch(&task->usage.counter, 1, __ATOMIC_SEQ_CST))
		return;
	kmem_free(&sighand_cachep, task->sighand);
	kmem_free(&signal_cachep, task->signal);
	free_pages(task->thread_info, 1);
	kmem_free(&task_struct_cachep, task);
}

/* A copy of the current task with a stack of its own, on no list yet. */
static task_t *dup_task_struct(void)
{
	task_t *task = kmem_alloc(&task_struct_cachep);
	struct thread_info *info = alloc_pages(1);

	*task = *current;
	task->thread_info = info;
	info->task = task;
	info->cpu = smp_processor_id();
	info->addr_limit.seg = 1UL << 47;
	task->usage.counter = 2; /* one for its parent's wait, one for its last switch */
	task->flags = 0;
	task->thread.rsp0 = (unsigned long)info + THREAD_SIZE;
	task->utime = task->stime = task->nvcsw = task->nivcsw = task->sched_time = task->sleep_avg = 0;
	task->mm = NULL;
	task->active_mm = NULL;
	task->files = NULL;
	task->exit_state = task->exit_code = 0;
	task->signal = kmem_alloc(&signal_cachep);
	task->signal->count.counter = task->signal->live.counter = 1;
	waitq_init(child_waitq(task));
	task->sighand = kmem_alloc(&sighand_cachep);
	task->sighand->count.counter = 1;
	task->sighand->siglock = SPIN_LOCK_UNLOCKED;
	task->alloc_lock = task->proc_lock = SPIN_LOCK_UNLOCKED;
	task->group_leader = task;
	*(unsigned long *)&task->start_time = jiffies / HZ;
	INIT_LIST_HEAD(&task->children);
	INIT_LIST_HEAD(&task->sibling);
	INIT_LIST_HEAD(&task->tasks);
	return task;
}

/* What switch_to() finds on a new stack: rbx and r12 for ret_from_fork(), below the registers of user mode. */
static void prepare_stack(task_t *task, unsigned long function, unsigned long argument)
{
	unsigned long *frame = (unsigned long *)(task->thread.rsp0 - sizeof(struct pt_regs));

	*--frame = (unsigned long)ret_from_fork;
	*--frame = 0; /* rbp */
	*--frame = function; /* rbx */
	*--frame = argument; /* r12 */
	frame -= 3; /* r13, r14, r15: cleared with the stack */
	task->thread.rsp = (unsigned long)frame;
}

/* Puts the task on the lists and wakes it. Returns its number. */
static int start_task(task_t *task)
{
	unsigned long flags;
	int pid;

	sched_fork(task);
	flags = spin_lock_irqsave(&tasklist_lock);
	pid = task->pid = task->tgid = ++last_pid;
	for (int type = 0; type < 4; type++) {
		task->pids[type].nr = pid;
		INIT_LIST_HEAD(&task->pids[type].pid_list);
	}
	task->parent = task->real_parent = current;
	list_add_tail(&task->sibling, &current->children);
	list_add_tail(&task->tasks, &init_task.tasks);
	wake_up_new_task(task); /* under this lock, so that no check sees a new task that is not queued yet */
	spin_unlock_irqrestore(&tasklist_lock, flags);
	return pid;
}

/* A kernel thread. When its function returns, it goes to user mode with the registers that are on its stack then. */
int kernel_thread(void (*function)(void *), void *argument, const char *comm)
{
	task_t *task = dup_task_struct();

	memset(task->comm, 0, sizeof(task->comm));
	memcpy(task->comm, comm, min(strlen(comm), sizeof(task->comm) - 1));
	prepare_stack(task, (unsigned long)function, (unsigned long)argument);
	return start_task(task);
}

int do_fork(struct pt_regs *regs)
{
	task_t *task = dup_task_struct();
	struct pt_regs *child_regs = (struct pt_regs *)(task->thread.rsp0 - sizeof(struct pt_regs));

	task->mm = task->active_mm = mm_alloc();
	task->mm->start_code = current->mm->start_code;
	task->mm->end_code = current->mm->end_code;
	task->mm->start_stack = current->mm->start_stack;
	copy_user_pages(task->mm->pgd, current->mm->pgd);
	task->files = files_get(current->files);
	*child_regs = *regs;
	child_regs->rax = 0;
	prepare_stack(task, 0, 0);
	return start_task(task);
}

/* A CPU's idle task. Its number is 0, as init_task's is, and it is on no list. */
task_t *fork_idle(int cpu)
{
	task_t *task = dup_task_struct();

	task->pid = task->tgid = 0;
	task->active_mm = &init_mm;
	__atomic_add_fetch(&init_mm.mm_count.counter, 1, __ATOMIC_SEQ_CST);
	memset(task->comm, 0, sizeof(task->comm));
	memcpy(task->comm, "swapper", 7);
	init_idle(task, cpu);
	task->thread_info->cpu = cpu;
	return task;
}

void fork_init(void) { waitq_init(child_waitq(&init_task)); }

/* The living or dead but unburied task with that number; call with tasklist_lock held. */
task_t *find_task_by_pid(int pid)
{
	for (struct list_head *entry = init_task.tasks.next; entry != &init_task.tasks; entry = entry->next)
		if (list_entry(entry, task_t, tasks)->pid == pid)
			return list_entry(entry, task_t, tasks);
	return NULL;
}
