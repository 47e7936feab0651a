/* Time: the tick of each CPU, and tasks that wait for a tick to come. */
#include "kernel.h"

struct timer {
	struct list_head link;
	unsigned long expires; /* jiffies */
	task_t *task;
};

volatile unsigned long jiffies;
/* Nanoseconds from one tick to the next. The host learns HZ from it; the guest itself does not use it. */
unsigned long tick_nsec = 1000000000UL / HZ;
static struct list_head timers = { &timers, &timers };
static spinlock_t timer_lock = SPIN_LOCK_UNLOCKED;

/* Nanoseconds since the counter started, for time stamps of tasks. */
unsigned long sched_clock(void)
{
	unsigned long cycles = rdtsc();

	return cycles / tsc_khz * 1000000 + cycles % tsc_khz * 1000000 / tsc_khz;
}

/* Wakes the tasks whose tick has come. CPU 0 does it for all CPUs, so most wake-ups cross CPUs. */
static void run_timers(void)
{
	unsigned long flags = spin_lock_irqsave(&timer_lock);

	for (struct list_head *entry = timers.next; entry != &timers;) {
		struct timer *timer = list_entry(entry, struct timer, link);

		entry = entry->next;
		if ((long)(jiffies - timer->expires) < 0)
			continue;
		list_del_init(&timer->link);
		try_to_wake_up(timer->task, TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE);
	}
	spin_unlock_irqrestore(&timer_lock, flags);
}

void timer_tick(struct pt_regs *regs)
{
	write_pda(apic_timer_irqs, read_pda(apic_timer_irqs) + 1);
	if (smp_processor_id() == 0) {
		jiffies++;
		run_timers();
	}
	scheduler_tick(regs->cs & 3);
}

/* Sleeps in the state that the caller has set, until that many ticks have passed or the task is woken. */
void schedule_timeout(unsigned long ticks)
{
	struct timer timer = { .expires = jiffies + ticks, .task = current };
	unsigned long flags = spin_lock_irqsave(&timer_lock);

	list_add_tail(&timer.link, &timers);
	spin_unlock_irqrestore(&timer_lock, flags);
	schedule();
	flags = spin_lock_irqsave(&timer_lock);
	list_del(&timer.link);
	spin_unlock_irqrestore(&timer_lock, flags);
}
