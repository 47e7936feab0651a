/*
 * The O(1) scheduler of Linux 2.6.16, written anew: the structures, their states whenever a run-queue lock is
 * free, the time slices and the priorities are the same. README.md lists what is left out.
 */
#include "kernel.h"

#define MS_TO_TICKS(ms) ((ms) * HZ / 1000)
#define MIN_TIMESLICE max(MS_TO_TICKS(5), 1)
#define DEF_TIMESLICE MS_TO_TICKS(100)
#define MAX_BONUS 10 /* priorities from -5 to +5 by how much a task sleeps */
#define MAX_SLEEP_AVG_NS 1000000000UL
#define INTERACTIVE_DELTA 2
#define STARVATION_TICKS (MAX_BONUS * DEF_TIMESLICE)
#define BUSY_BALANCE_TICKS MS_TO_TICKS(200)

static DEFINE_PER_CPU(struct runqueue, runqueues) CACHE_ALIGNED_IN_SMP;
#define cpu_rq(cpu) (&per_cpu(runqueues, cpu))
#define this_rq() cpu_rq(smp_processor_id())
#define task_rq(task) cpu_rq(task_cpu(task))

#ifdef CONFIG_SCHEDSTATS
#define schedstat_inc(rq, field) ((rq)->field++)
#else
#define schedstat_inc(rq, field) ((void)0)
#endif

/* ---- locks ---- */

/* Unlocks a run queue, unless it was unlocked already. */
static void let_go(struct runqueue *rq)
{
	check_locked(rq, smp_processor_id());
	raw_spin_unlock(&rq->lock);
}

/* Locks the run queue of a task, which may change until that lock is held. */
static struct runqueue *task_rq_lock(task_t *task, unsigned long *flags)
{
	for (;;) {
		struct runqueue *rq;

		*flags = local_irq_save();
		rq = task_rq(task);
		raw_spin_lock(&rq->lock);
		if (rq == task_rq(task))
			return rq;
		let_go(rq);
		local_irq_restore(*flags);
	}
}

static void rq_unlock(struct runqueue *rq, unsigned long flags)
{
	let_go(rq);
	local_irq_restore(flags);
}

/* ---- priorities and time slices ---- */

/* Ticks: 100 ms at nice 0, from 5 ms (nice 19) to 800 ms (nice -20). */
static unsigned int task_timeslice(const task_t *task)
{
	int base = task->static_prio < NICE_TO_PRIO(0) ? DEF_TIMESLICE * 4 : DEF_TIMESLICE;

	return max(base * (MAX_PRIO - task->static_prio) / 20, MIN_TIMESLICE);
}

static int sleep_bonus(const task_t *task) { return task->sleep_avg * MAX_BONUS / MAX_SLEEP_AVG_NS; }

static int effective_prio(const task_t *task)
{
	int prio = task->static_prio - (sleep_bonus(task) - MAX_BONUS / 2);

	return min(max(prio, MAX_USER_RT_PRIO), MAX_PRIO - 1);
}

static int task_interactive(const task_t *task)
{
	return task->prio <= task->static_prio - (PRIO_TO_NICE(task->static_prio) * MAX_BONUS / 40 + INTERACTIVE_DELTA);
}

/* Whether the expired array has waited so long that interactive tasks must queue there too. */
static int expired_starving(const struct runqueue *rq)
{
	return (rq->expired_timestamp && jiffies - rq->expired_timestamp >= STARVATION_TICKS * rq->nr_running + 1) ||
	       rq->curr->static_prio > rq->best_expired_prio;
}

/* ---- the queues ---- */

static void enqueue_task(task_t *task, prio_array_t *array)
{
	list_add_tail(&task->run_list, &array->queue[task->prio]);
	__set_bit(task->prio, array->bitmap);
	array->nr_active++;
	task->array = array;
}

static void dequeue_task(task_t *task, prio_array_t *array)
{
	array->nr_active--;
	list_del(&task->run_list);
	if (list_empty(&array->queue[task->prio]))
		__clear_bit(task->prio, array->bitmap);
}

/* Moves a task to the end of its own queue. */
static void requeue_task(task_t *task, prio_array_t *array)
{
	list_del(&task->run_list);
	list_add_tail(&task->run_list, &array->queue[task->prio]);
}

/* Makes a task runnable that has slept since its time stamp. */
static void activate_task(task_t *task, struct runqueue *rq)
{
	unsigned long now = sched_clock(), slept = now > task->timestamp ? now - task->timestamp : 0;

	task->sleep_avg = min(task->sleep_avg + min(slept, MAX_SLEEP_AVG_NS) * max(MAX_BONUS - sleep_bonus(task), 1),
			      MAX_SLEEP_AVG_NS);
	task->prio = effective_prio(task);
	task->timestamp = now;
	enqueue_task(task, rq->active);
	rq->nr_running++;
}

static void deactivate_task(task_t *task, struct runqueue *rq)
{
	rq->nr_running--;
	dequeue_task(task, task->array);
	task->array = NULL;
}

static void resched_task(task_t *task)
{
	int cpu = task_cpu(task);

	if (task->thread_info->flags & TIF_NEED_RESCHED_MASK)
		return;
	set_tsk_need_resched(task);
	if (cpu != (int)smp_processor_id())
		smp_send_reschedule(cpu);
}

/* ---- balance between CPUs ---- */
#ifdef CONFIG_SMP
static int cpu_exists(int cpu) { return cpu < NR_CPUS && _cpu_pda[cpu]; }
static int allowed_on(const task_t *task, int cpu) { return task->cpus_allowed.bits[0] >> cpu & 1; }
static void set_task_cpu(task_t *task, int cpu) { task->thread_info->cpu = cpu; }

/* Locks a second queue; of two, the lower address is always locked first. May let go of rq's lock for a moment. */
static void double_lock_balance(struct runqueue *rq, struct runqueue *other)
{
	if (raw_spin_trylock(&other->lock))
		return;
	if (other < rq) {
		let_go(rq);
		raw_spin_lock(&other->lock);
		raw_spin_lock(&rq->lock);
	} else {
		raw_spin_lock(&other->lock);
	}
}

static int can_migrate(const task_t *task, const struct runqueue *from, int to)
{
	return task != from->curr && allowed_on(task, to);
}

/* Moves up to count ready tasks, those that have waited longest first: expired ones, then by priority. */
static int move_tasks(struct runqueue *to, int to_cpu, struct runqueue *from, unsigned long count)
{
	prio_array_t *sources[] = { from->expired, from->active };
	unsigned long moved = 0;

	for (int s = 0; s < 2; s++)
		for (int prio = 0; prio < MAX_PRIO; prio++) {
			struct list_head *queue = &sources[s]->queue[prio];

			for (struct list_head *entry = queue->prev; entry != queue && moved < count;) {
				task_t *task = list_entry(entry, task_t, run_list);

				entry = entry->prev;
				if (!can_migrate(task, from, to_cpu))
					continue;
				dequeue_task(task, sources[s]);
				from->nr_running--;
				set_task_cpu(task, to_cpu);
				to->nr_running++;
				enqueue_task(task, sources[s] == from->expired ? to->expired : to->active);
				if (task->prio < to->curr->prio)
					set_tsk_need_resched(to->curr);
				moved++;
			}
		}
	return moved;
}

/* Pulls tasks from the busiest queue until both are equal. This CPU's lock is held; it may be dropped for a moment. */
static int load_balance(struct runqueue *rq, int cpu)
{
	struct runqueue *busiest = NULL;
	int moved = 0;

	for (int other = 0; cpu_exists(other); other++)
		if (other != cpu && cpu_rq(other)->nr_running > (busiest ? busiest->nr_running : rq->nr_running + 1))
			busiest = cpu_rq(other);
	if (!busiest)
		return 0;
	double_lock_balance(rq, busiest);
	if (busiest->nr_running > rq->nr_running + 1)
		moved = move_tasks(rq, cpu, busiest, (busiest->nr_running - rq->nr_running) / 2);
	raw_spin_unlock(&busiest->lock);
	return moved;
}

/* Balances each CPU at a tick of its own: often while idle, seldom while busy. */
static void rebalance_tick(struct runqueue *rq, int cpu)
{
	unsigned long interval = rq->curr == rq->idle ? 1 : BUSY_BALANCE_TICKS;

	rq->cpu_load[0] = rq->nr_running * 128;
	for (int i = 1; i < 3; i++)
		rq->cpu_load[i] = (rq->cpu_load[i] * ((1UL << i) - 1) + rq->cpu_load[0]) >> i;
	if ((jiffies + cpu * 7) % interval == 0 && load_balance(rq, cpu) && rq->curr == rq->idle)
		set_tsk_need_resched(rq->idle);
}

/* The CPU for a woken or new task: its last one, or an idle one if that is busy. */
static int choose_cpu(const task_t *task)
{
	int cpu = task_cpu(task), best = allowed_on(task, cpu) ? cpu : -1;

	for (int other = 0; cpu_exists(other); other++)
		if (allowed_on(task, other) && (best < 0 || cpu_rq(other)->nr_running < cpu_rq(best)->nr_running) &&
		    (best < 0 || cpu_rq(other)->nr_running == 0))
			best = other;
	return best < 0 ? cpu : best;
}
#else
static int allowed_on(const task_t *task, int cpu) { return (void)task, (void)cpu, 1; }
static int load_balance(struct runqueue *rq, int cpu) { return (void)rq, (void)cpu, 0; }
static void rebalance_tick(struct runqueue *rq, int cpu) { (void)rq, (void)cpu; }
static int choose_cpu(const task_t *task) { return (void)task, 0; }
static void set_task_cpu(task_t *task, int cpu) { (void)task, (void)cpu; }
#endif

/* ---- wake-ups ---- */

/* Makes a task runnable if its state is one of those given. Returns 1 if so. */
int try_to_wake_up(task_t *task, unsigned int states)
{
	unsigned long flags;
	struct runqueue *rq = task_rq_lock(task, &flags);
	int cpu;

	if (!(task->state & states)) {
		rq_unlock(rq, flags);
		return 0;
	}
	schedstat_inc(rq, ttwu_cnt);
	if (!task->array && task != rq->curr) { /* a task on its way to sleep stays on its CPU */
		cpu = choose_cpu(task);
		if (cpu == task_cpu(task)) {
			schedstat_inc(rq, ttwu_local);
		} else {
			/* Between the two locks it still counts as asleep, so another CPU may wake it first. */
			set_task_cpu(task, cpu);
			rq_unlock(rq, flags);
			rq = task_rq_lock(task, &flags);
			if (!(task->state & states)) {
				rq_unlock(rq, flags);
				return 0;
			}
		}
	}
	if (!task->array) {
		if (task->state == TASK_UNINTERRUPTIBLE)
			rq->nr_uninterruptible--;
		activate_task(task, rq);
		if (task->prio < rq->curr->prio)
			resched_task(rq->curr);
	}
	task->state = TASK_RUNNING;
	rq_unlock(rq, flags);
	return 1;
}

void waitq_init(struct waitq *queue)
{
	queue->lock = SPIN_LOCK_UNLOCKED;
	INIT_LIST_HEAD(&queue->waiters);
}

/* The caller sleeps at its next schedule(), unless woken before. It must check its condition after this. */
void prepare_to_wait(struct waitq *queue, struct waiter *waiter)
{
	unsigned long flags = spin_lock_irqsave(&queue->lock);

	waiter->task = current;
	list_add_tail(&waiter->link, &queue->waiters);
	__atomic_store_n(&current->state, TASK_INTERRUPTIBLE, __ATOMIC_SEQ_CST);
	spin_unlock_irqrestore(&queue->lock, flags);
}

void finish_wait(struct waitq *queue, struct waiter *waiter)
{
	unsigned long flags = spin_lock_irqsave(&queue->lock);

	current->state = TASK_RUNNING;
	list_del(&waiter->link);
	spin_unlock_irqrestore(&queue->lock, flags);
}

void wake_up(struct waitq *queue)
{
	unsigned long flags = spin_lock_irqsave(&queue->lock);

	for (struct list_head *entry = queue->waiters.next; entry != &queue->waiters; entry = entry->next)
		try_to_wake_up(list_entry(entry, struct waiter, link)->task, TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE);
	spin_unlock_irqrestore(&queue->lock, flags);
}

/* ---- birth and death ---- */

/* A child gets half of what its parent has left of its time slice. */
void sched_fork(task_t *child)
{
	child->state = TASK_RUNNING;
	child->array = NULL;
	INIT_LIST_HEAD(&child->run_list);
	local_irq_disable();
	child->time_slice = (current->time_slice + 1) / 2;
	child->first_time_slice = 1;
	current->time_slice = max(current->time_slice / 2, 1U);
	child->timestamp = sched_clock();
	local_irq_enable();
#ifdef CONFIG_PREEMPT
	child->thread_info->preempt_count = 1; /* schedule_tail() ends the switch it is born in */
#else
	child->thread_info->preempt_count = 0;
#endif
}

void wake_up_new_task(task_t *task)
{
	unsigned long flags;
	struct runqueue *rq;

	set_task_cpu(task, choose_cpu(task));
	rq = task_rq_lock(task, &flags);
	task->prio = effective_prio(task);
	enqueue_task(task, rq->active);
	rq->nr_running++;
	if (task->prio < rq->curr->prio)
		resched_task(rq->curr);
	rq_unlock(rq, flags);
}

/* A child that dies in its first time slice gives the rest back to its parent. */
void sched_exit(task_t *child)
{
	unsigned long flags;
	struct runqueue *rq = task_rq_lock(child->parent, &flags);

	if (child->first_time_slice)
		child->parent->time_slice = min(child->parent->time_slice + child->time_slice, task_timeslice(child->parent));
	rq_unlock(rq, flags);
}

/* ---- the tick ---- */

static void slice_used_up(task_t *task, struct runqueue *rq)
{
	dequeue_task(task, rq->active);
	set_tsk_need_resched(task);
	task->prio = effective_prio(task);
	task->time_slice = task_timeslice(task);
	task->first_time_slice = 0;
	if (!rq->expired_timestamp)
		rq->expired_timestamp = jiffies;
	if (!task_interactive(task) || expired_starving(rq)) {
		enqueue_task(task, rq->expired);
		if (task->static_prio < rq->best_expired_prio)
			rq->best_expired_prio = task->static_prio;
	} else {
		enqueue_task(task, rq->active);
	}
}

/* Called every 1/HZ s on every CPU, interrupts off. */
void scheduler_tick(int user_mode)
{
	int cpu = smp_processor_id();
	struct runqueue *rq = cpu_rq(cpu);
	task_t *task = current;

	if (task == rq->idle || !user_mode)
		task->stime++;
	else
		task->utime++;
	raw_spin_lock(&rq->lock);
	rq->timestamp_last_tick = sched_clock();
	check_runqueue(rq, cpu, task);
	if (task != rq->idle) {
		if (task->array != rq->active) /* expired already, and about to be switched from */
			set_tsk_need_resched(task);
		else if (!--task->time_slice)
			slice_used_up(task, rq);
	}
	rebalance_tick(rq, cpu);
	let_go(rq);
}

/* ---- the switch ---- */

/* Runs on the new task's stack, and lets go of the lock that the old one took. */
static void finish_task_switch(task_t *prev)
{
	struct runqueue *rq = this_rq();
	struct mm_struct *mm = rq->prev_mm;
	unsigned long dead = prev->flags & PF_DEAD;

	rq->prev_mm = NULL;
	let_go(rq);
	local_irq_enable();
	if (mm)
		mmdrop(mm);
	if (dead)
		put_task_struct(prev);
}

void schedule_tail(task_t *prev)
{
	finish_task_switch(prev);
	preempt_enable_no_resched();
}

/* A task without memory of its own keeps the page tables of the one before it. */
static task_t *context_switch(struct runqueue *rq, task_t *prev, task_t *next)
{
	struct mm_struct *old = prev->active_mm;

	if (!next->mm) {
		next->active_mm = old;
		__atomic_add_fetch(&old->mm_count.counter, 1, __ATOMIC_SEQ_CST);
	} else if (old != next->mm) {
		write_pda(active_mm, next->mm);
		write_cr3(__pa(next->mm->pgd));
	}
	if (!prev->mm) {
		prev->active_mm = NULL;
		rq->prev_mm = old;
	}
	return switch_to(prev, next);
}

static task_t *pick_next_task(struct runqueue *rq, int cpu)
{
	prio_array_t *array;
	int word = 0;

	if (!rq->nr_running) {
		load_balance(rq, cpu);
		if (!rq->nr_running) {
			schedstat_inc(rq, sched_goidle);
			rq->expired_timestamp = 0;
			return rq->idle;
		}
	}
	array = rq->active;
	if (!array->nr_active) { /* every task has had a time slice: swap the arrays */
		schedstat_inc(rq, sched_switch);
		rq->active = rq->expired;
		rq->expired = array;
		array = rq->active;
		rq->expired_timestamp = 0;
		rq->best_expired_prio = MAX_PRIO;
	}
	while (!array->bitmap[word])
		word++;
	return list_entry(array->queue[word * 64 + __builtin_ctzl(array->bitmap[word])].next, task_t, run_list);
}

void schedule(void)
{
	do {
		task_t *prev = current, *next;
		struct runqueue *rq;
		unsigned long now, ran;
		int cpu;

		preempt_disable();
		local_irq_disable();
		cpu = smp_processor_id();
		rq = cpu_rq(cpu);
		raw_spin_lock(&rq->lock);
		schedstat_inc(rq, sched_cnt);
		now = sched_clock();
		ran = min(now > prev->timestamp ? now - prev->timestamp : 0, MAX_SLEEP_AVG_NS);
		prev->sched_time += ran;
		ran /= max(sleep_bonus(prev), 1);
		prev->sleep_avg = prev->sleep_avg > ran ? prev->sleep_avg - ran : 0;
		if (prev->flags & PF_DEAD)
			prev->state = EXIT_DEAD;
		if (prev->state && !(prev->thread_info->preempt_count & PREEMPT_ACTIVE)) {
			prev->nvcsw++;
			if (prev->state == TASK_UNINTERRUPTIBLE)
				rq->nr_uninterruptible++;
			deactivate_task(prev, rq);
		} else {
			prev->nivcsw++;
		}
		next = pick_next_task(rq, cpu);
		clear_tsk_need_resched(prev);
		prev->timestamp = prev->last_ran = now;
		check_runqueue(rq, cpu, next);
		if (next != prev) {
			next->timestamp = now;
			rq->nr_switches++;
			rq->curr = next;
			finish_task_switch(context_switch(rq, prev, next));
		} else {
			let_go(rq);
			local_irq_enable();
		}
		preempt_enable_no_resched();
	} while (need_resched());
}

#ifdef CONFIG_PREEMPT
/*
 * PREEMPT_ACTIVE keeps a preempted task on its queue, whatever state it was about to sleep in. Left with interrupts off,
 * so that they cannot pile up on this stack.
 */
static void preempt(void)
{
	do {
		current_thread_info()->preempt_count += PREEMPT_ACTIVE;
		schedule();
		local_irq_disable();
		current_thread_info()->preempt_count -= PREEMPT_ACTIVE;
	} while (need_resched());
}

/* Called by preempt_enable(). */
void preempt_schedule(void)
{
	if (current_thread_info()->preempt_count || !(read_flags() & 0x200))
		return;
	preempt();
	local_irq_enable();
}

/* Called on the return from an interrupt to kernel code, interrupts off. */
void preempt_schedule_irq(void) { preempt(); }
#endif

void cpu_idle(void)
{
	for (;;) {
		local_irq_disable();
		if (!need_resched()) {
			safe_halt();
			continue;
		}
		local_irq_enable();
		schedule();
	}
}

/* ---- system calls ---- */

/* Moves the caller to the end of the expired array, behind every other task. */
void yield(void)
{
	unsigned long flags;
	struct runqueue *rq = task_rq_lock(current, &flags);

	schedstat_inc(rq, yld_cnt);
	if (current->array == rq->active) {
		dequeue_task(current, rq->active);
		enqueue_task(current, rq->expired);
	} else {
		requeue_task(current, rq->expired);
	}
	rq_unlock(rq, flags);
	schedule();
}

void set_user_nice(task_t *task, int nice)
{
	unsigned long flags;
	struct runqueue *rq = task_rq_lock(task, &flags);
	prio_array_t *array = task->array;
	int old_prio = task->prio;

	if (array)
		dequeue_task(task, array);
	task->static_prio = NICE_TO_PRIO(nice);
	task->prio = effective_prio(task);
	if (array) {
		enqueue_task(task, array);
		if (task->prio < old_prio || (task->prio > old_prio && task == rq->curr))
			resched_task(rq->curr);
	}
	rq_unlock(rq, flags);
}

/* A mask with a bit for each CPU, for the caller alone, so that no running task of another CPU must be moved. */
int set_cpus_allowed(task_t *task, unsigned long mask)
{
	if (task != current || !(mask & ((1UL << num_online_cpus) - 1)))
		return -EINVAL;
	task->cpus_allowed.bits[0] = mask;
	/* While it sleeps it is on no queue; its wake-up chooses an allowed CPU. */
	while (!allowed_on(task, smp_processor_id())) {
		__atomic_store_n(&task->state, TASK_UNINTERRUPTIBLE, __ATOMIC_SEQ_CST);
		schedule_timeout(1);
	}
	return 0;
}

void init_idle(task_t *idle, int cpu)
{
	struct runqueue *rq = cpu_rq(cpu);

	idle->sleep_avg = 0;
	idle->array = NULL;
	idle->prio = MAX_PRIO;
	idle->state = TASK_RUNNING;
	set_task_cpu(idle, cpu);
	rq->curr = rq->idle = idle;
	set_tsk_need_resched(idle);
}

void sched_init(void)
{
	for (int cpu = 0; cpu < NR_CPUS && _cpu_pda[cpu]; cpu++) {
		struct runqueue *rq = cpu_rq(cpu);

		rq->lock = SPIN_LOCK_UNLOCKED;
		rq->active = &rq->arrays[0];
		rq->expired = &rq->arrays[1];
		rq->best_expired_prio = MAX_PRIO;
#ifdef CONFIG_SMP
		INIT_LIST_HEAD(&rq->migration_queue);
#endif
		for (int a = 0; a < 2; a++) {
			for (int prio = 0; prio < MAX_PRIO; prio++)
				INIT_LIST_HEAD(&rq->arrays[a].queue[prio]);
			__set_bit(MAX_PRIO, rq->arrays[a].bitmap); /* so that a search always ends */
		}
	}
	init_idle(&init_task, 0);
}
