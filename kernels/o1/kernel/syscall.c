/* System calls, with the numbers and arguments of x86-64 Linux. */
#include "kernel.h"

#define NS_PER_TICK (1000000000 / HZ)

enum {
	SYS_READ = 0,
	SYS_WRITE = 1,
	SYS_PIPE = 22,
	SYS_YIELD = 24,
	SYS_NANOSLEEP = 35,
	SYS_GETPID = 39,
	SYS_FORK = 57,
	SYS_EXIT = 60,
	SYS_WAIT4 = 61,
	SYS_TIMES = 100,
	SYS_GETPPID = 110,
	SYS_GETPRIORITY = 140,
	SYS_SETPRIORITY = 141,
	SYS_SCHED_SETAFFINITY = 203,
	SYS_CLOCK_GETTIME = 228,
	SYS_GETCPU = 309,
};

static long sys_write(int fd, unsigned long user, unsigned long count)
{
	char line[256];

	if (fd > 2)
		return pipe_io(fd, user, count, 1);
	count = min(count, sizeof(line)); /* one call, one unbroken piece on the console */
	if (copy_user(line, user, count, 0))
		return -EFAULT;
	console_write(line, count);
	return count;
}

static long sys_pipe(unsigned long user)
{
	int fd = pipe_create(), fds[2] = { fd, fd };

	return fd < 0 ? fd : copy_user(fds, user, sizeof(fds), 1);
}

static long sys_nanosleep(unsigned long user)
{
	long time[2];

	if (copy_user(time, user, sizeof(time), 0))
		return -EFAULT;
	if (time[0] < 0 || time[0] > 1000000 || time[1] < 0 || time[1] >= 1000000000)
		return -EINVAL;
	current->state = TASK_INTERRUPTIBLE;
	schedule_timeout(time[0] * HZ + (time[1] + NS_PER_TICK - 1) / NS_PER_TICK + 1);
	return 0;
}

static long sys_wait4(unsigned long user)
{
	int status = 0, pid = do_wait(&status);

	if (pid > 0 && user) {
		status = (status & 0xff) << 8;
		if (copy_user(&status, user, sizeof(status), 1))
			return -EFAULT;
	}
	return pid;
}

static long sys_times(unsigned long user)
{
	unsigned long ticks[4] = { current->utime, current->stime, 0, 0 };

	return copy_user(ticks, user, sizeof(ticks), 1) ? -EFAULT : (long)jiffies;
}

/* get: 20 - nice, as Linux; set: 0. Process 0 is the caller. */
static long priority(int pid, int set, int nice)
{
	unsigned long flags = spin_lock_irqsave(&tasklist_lock);
	task_t *task = pid ? find_task_by_pid(pid) : current;
	long result = -ESRCH;

	if (task && !task->exit_state) {
		if (set)
			set_user_nice(task, min(max(nice, -20), 19));
		result = set ? 0 : 20 - PRIO_TO_NICE(task->static_prio);
	}
	spin_unlock_irqrestore(&tasklist_lock, flags);
	return result;
}

static long sys_clock_gettime(unsigned long user)
{
	unsigned long now = sched_clock(), time[2] = { now / 1000000000, now % 1000000000 };

	return copy_user(time, user, sizeof(time), 1);
}

static long sys_sched_setaffinity(int pid, unsigned long user)
{
	unsigned long mask;

	if (copy_user(&mask, user, sizeof(mask), 0))
		return -EFAULT;
	return pid ? -EINVAL : set_cpus_allowed(current, mask);
}

static long sys_getcpu(unsigned long user)
{
	int cpu = smp_processor_id();

	return copy_user(&cpu, user, sizeof(cpu), 1);
}

static long call(struct pt_regs *regs)
{
	switch (regs->rax) {
	case SYS_READ:
		return pipe_io(regs->rdi, regs->rsi, regs->rdx, 0);
	case SYS_WRITE:
		return sys_write(regs->rdi, regs->rsi, regs->rdx);
	case SYS_PIPE:
		return sys_pipe(regs->rdi);
	case SYS_YIELD:
		yield();
		return 0;
	case SYS_NANOSLEEP:
		return sys_nanosleep(regs->rdi);
	case SYS_GETPID:
		return current->pid;
	case SYS_GETPPID:
		return current->parent->pid;
	case SYS_FORK:
		return do_fork(regs);
	case SYS_EXIT:
		do_exit(regs->rdi);
	case SYS_WAIT4:
		return sys_wait4(regs->rsi);
	case SYS_TIMES:
		return sys_times(regs->rdi);
	case SYS_GETPRIORITY:
		return priority(regs->rsi, 0, 0);
	case SYS_SETPRIORITY:
		return priority(regs->rsi, 1, regs->rdx);
	case SYS_SCHED_SETAFFINITY:
		return sys_sched_setaffinity(regs->rdi, regs->rdx);
	case SYS_CLOCK_GETTIME:
		return sys_clock_gettime(regs->rsi);
	case SYS_GETCPU:
		return sys_getcpu(regs->rdi);
	default:
		return -ENOSYS;
	}
}

void do_syscall(struct pt_regs *regs) { regs->rax = call(regs); }
