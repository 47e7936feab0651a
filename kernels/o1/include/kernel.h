/* Declarations that the parts of the guest share. */
#pragma once

#include "asm.h"
#include "autoconf.h"
#include "defs.h"
#include "layout.h"

#define NULL ((void *)0)
#define HZ CONFIG_HZ
#ifdef CONFIG_SMP
#define NR_CPUS CONFIG_NR_CPUS
#define CACHE_ALIGNED_IN_SMP __attribute__((aligned(1 << CONFIG_X86_L1_CACHE_SHIFT)))
#else
#define NR_CPUS 1
#define CACHE_ALIGNED_IN_SMP
#endif
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - __builtin_offsetof(type, member)))
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))

/* task_struct.state and .exit_state */
#define TASK_RUNNING 0
#define TASK_INTERRUPTIBLE 1
#define TASK_UNINTERRUPTIBLE 2
#define TASK_STOPPED 4
#define EXIT_ZOMBIE 16
#define EXIT_DEAD 32
/* task_struct.flags */
#define PF_EXITING 4
#define PF_DEAD 8
/* thread_info.preempt_count */
#define HARDIRQ_OFFSET 0x10000
#define PREEMPT_ACTIVE 0x10000000

#define MAX_USER_RT_PRIO 100
#define MAX_PRIO 140
#define NICE_TO_PRIO(nice) (120 + (nice))
#define PRIO_TO_NICE(prio) ((prio) - 120)

#define ECHILD 10
#define EFAULT 14
#define EINVAL 22
#define ENOMEM 12
#define ENOSYS 38
#define ESRCH 3
#define EMFILE 24

/* The registers of an interrupted or calling program, as the entry code pushes them. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax;
	unsigned long rip, cs, eflags, rsp, ss;
};

/* ---- per-CPU data ---- */
extern struct x8664_pda *_cpu_pda[NR_CPUS];
extern unsigned int num_online_cpus;

#define read_pda(member)                                                                                                \
	({                                                                                                              \
		typeof(((struct x8664_pda *)0)->member) value_;                                                         \
		asm volatile("mov %%gs:%c1, %0" : "=r"(value_) : "i"(__builtin_offsetof(struct x8664_pda, member)));    \
		value_;                                                                                                 \
	})
#define write_pda(member, value)                                                                                        \
	asm volatile("mov %0, %%gs:%c1" ::"r"((typeof(((struct x8664_pda *)0)->member))(value)),                        \
		     "i"(__builtin_offsetof(struct x8664_pda, member)) : "memory")
#define current (read_pda(pcurrent))
#define smp_processor_id() (read_pda(cpunumber))

/* A per-CPU variable's own address holds its initial value; each CPU has a copy, data_offset bytes away. */
#ifdef CONFIG_SMP
#define DEFINE_PER_CPU(type, name) __attribute__((section(".data.percpu"))) type per_cpu__##name
#define per_cpu(name, cpu)                                                                                              \
	(*({                                                                                                            \
		unsigned long address_;                                                                                 \
		asm("" : "=r"(address_) : "0"(&per_cpu__##name));                                                       \
		(typeof(per_cpu__##name) *)(address_ + _cpu_pda[cpu]->data_offset);                                     \
	}))
#else
#define DEFINE_PER_CPU(type, name) type per_cpu__##name
#define per_cpu(name, cpu) (*((void)(cpu), &per_cpu__##name))
#endif

/* ---- the current thread ---- */
static inline struct thread_info *current_thread_info(void)
{
	return (struct thread_info *)(read_pda(kernelstack) + PDA_STACKOFFSET - THREAD_SIZE);
}
static inline void set_tsk_need_resched(task_t *task)
{
	__atomic_or_fetch(&task->thread_info->flags, TIF_NEED_RESCHED_MASK, __ATOMIC_SEQ_CST);
}
static inline void clear_tsk_need_resched(task_t *task)
{
	__atomic_and_fetch(&task->thread_info->flags, ~TIF_NEED_RESCHED_MASK, __ATOMIC_SEQ_CST);
}
static inline int need_resched(void) { return READ_ONCE(current_thread_info()->flags) & TIF_NEED_RESCHED_MASK; }
static inline int task_cpu(const task_t *task)
{
#ifdef CONFIG_SMP
	return READ_ONCE(task->thread_info->cpu);
#else
	(void)task;
	return 0;
#endif
}

/* ---- preemption: the count is kept only in a preemptible kernel, and for interrupts ---- */
void preempt_schedule(void);
#ifdef CONFIG_PREEMPT
static inline void preempt_disable(void)
{
	current_thread_info()->preempt_count++;
	asm volatile("" ::: "memory");
}
static inline void preempt_enable_no_resched(void)
{
	asm volatile("" ::: "memory");
	current_thread_info()->preempt_count--;
}
static inline void preempt_enable(void)
{
	preempt_enable_no_resched();
	if (need_resched())
		preempt_schedule();
}
#else
static inline void preempt_disable(void) { asm volatile("" ::: "memory"); }
static inline void preempt_enable_no_resched(void) { asm volatile("" ::: "memory"); }
static inline void preempt_enable(void) { asm volatile("" ::: "memory"); }
#endif

/* ---- spinlocks: slock is 1 when free and zero or less when held, as in 2.6.16; nothing at all on one CPU ---- */
#ifdef CONFIG_PREEMPT
#define SPIN_LOCK_UNLOCKED ((spinlock_t){ { 1 }, 0 })
#elif defined(CONFIG_SMP)
#define SPIN_LOCK_UNLOCKED ((spinlock_t){ { 1 } })
#else
#define SPIN_LOCK_UNLOCKED ((spinlock_t){ { } })
#endif

#ifdef CONFIG_SMP
static inline int raw_spin_trylock(spinlock_t *lock)
{
	return (int)__atomic_exchange_n(&lock->raw_lock.slock, 0, __ATOMIC_ACQUIRE) > 0;
}
static inline void raw_spin_lock(spinlock_t *lock)
{
	while ((int)__atomic_sub_fetch(&lock->raw_lock.slock, 1, __ATOMIC_ACQUIRE) < 0) {
#ifdef CONFIG_PREEMPT
		lock->break_lock = 1;
#endif
		while ((int)READ_ONCE(lock->raw_lock.slock) <= 0)
			cpu_relax();
	}
}
static inline void raw_spin_unlock(spinlock_t *lock)
{
#ifdef CONFIG_PREEMPT
	lock->break_lock = 0;
#endif
	__atomic_store_n(&lock->raw_lock.slock, 1, __ATOMIC_RELEASE);
}
#else
static inline int raw_spin_trylock(spinlock_t *lock) { return (void)lock, 1; }
static inline void raw_spin_lock(spinlock_t *lock) { (void)lock; }
static inline void raw_spin_unlock(spinlock_t *lock) { (void)lock; }
#endif

static inline unsigned long spin_lock_irqsave(spinlock_t *lock)
{
	unsigned long flags = local_irq_save();
	preempt_disable();
	raw_spin_lock(lock);
	return flags;
}
static inline void spin_unlock_irqrestore(spinlock_t *lock, unsigned long flags)
{
	raw_spin_unlock(lock);
	local_irq_restore(flags);
	preempt_enable();
}

/* ---- doubly linked lists ---- */
#define list_entry(pointer, type, member) container_of(pointer, type, member)
static inline void INIT_LIST_HEAD(struct list_head *head) { head->next = head->prev = head; }
static inline int list_empty(const struct list_head *head) { return head->next == head; }
static inline void list_add_tail(struct list_head *entry, struct list_head *head)
{
	entry->next = head;
	entry->prev = head->prev;
	head->prev->next = entry;
	head->prev = entry;
}
static inline void list_del(struct list_head *entry)
{
	entry->next->prev = entry->prev;
	entry->prev->next = entry->next;
}
static inline void list_del_init(struct list_head *entry)
{
	list_del(entry);
	INIT_LIST_HEAD(entry);
}

/* ---- bitmaps (always under a lock) ---- */
static inline void __set_bit(int n, unsigned long *map) { map[n / 64] |= 1UL << n % 64; }
static inline void __clear_bit(int n, unsigned long *map) { map[n / 64] &= ~(1UL << n % 64); }
static inline int test_bit(int n, const unsigned long *map) { return map[n / 64] >> n % 64 & 1; }

/* ---- strings (kernel/string.c) ---- */
void *memset(void *to, int byte, unsigned long count);
void *memcpy(void *to, const void *from, unsigned long count);
int strncmp(const char *a, const char *b, unsigned long count);
unsigned long strlen(const char *s);
long simple_strtol(const char *s, const char **end);

/* ---- console (kernel/printk.c) ---- */
extern const char linux_banner[];
void serial_init(void);
void printk(const char *format, ...) __attribute__((format(printf, 1, 2)));
void console_write(const char *text, unsigned long count);
void bug(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
extern char saved_command_line[];
const char *command_line_option(const char *name);

/* ---- memory (kernel/alloc.c, arch/paging.c) ---- */
struct kmem_cache {
	spinlock_t lock;
	unsigned int size;
	void *free;
};
#define KMEM_CACHE(type) { SPIN_LOCK_UNLOCKED, sizeof(type), NULL }
#define __va(physical) ((void *)((unsigned long)(physical) + PAGE_OFFSET))
unsigned long __pa(const void *address);
extern unsigned long end_of_ram;
void add_memory(unsigned long start, unsigned long end);
void *alloc_pages(int order);
void free_pages(void *pages, int order);
void *kmem_alloc(struct kmem_cache *cache);
void kmem_free(struct kmem_cache *cache, void *object);
void map_all_memory(void);
pgd_t *pgd_alloc(void);
void map_user_page(pgd_t *pgd, unsigned long address, void *page);
void *user_page(pgd_t *pgd, unsigned long address);
void copy_user_pages(pgd_t *to, pgd_t *from);
void free_user_pages(pgd_t *pgd);
void pgd_free(pgd_t *pgd);
int copy_user(void *kernel, unsigned long user, unsigned long count, int to_user);
extern struct mm_struct init_mm;
struct mm_struct *mm_alloc(void);
void mmput(struct mm_struct *mm);
void mmdrop(struct mm_struct *mm);

/* ---- processors (arch/) ---- */
extern unsigned long tsc_khz;
void trap_init(void);
void cpu_init(int cpu, task_t *idle);
void load_stack_pointer(unsigned long rsp0);
void calibrate(void);
void setup_local_apic(void);
void apic_eoi(void);
void start_cpu(int cpu, unsigned long trampoline);
void smp_send_reschedule(int cpu);
void stop_other_cpus(void);
void smp_boot_cpus(void);
task_t *switch_to(task_t *prev, task_t *next);
extern void ret_from_fork(void);

/* ---- time (kernel/timer.c) ---- */
extern volatile unsigned long jiffies;
unsigned long sched_clock(void);
void timer_tick(struct pt_regs *regs);
void schedule_timeout(unsigned long ticks);

/* ---- scheduler (kernel/sched.c, kernel/check.c) ---- */
struct waitq { /* has the size of a wait_queue_head_t */
	spinlock_t lock;
	struct list_head waiters;
};
struct waiter {
	struct list_head link;
	task_t *task;
};
void sched_init(void);
void init_idle(task_t *idle, int cpu);
void schedule(void);
void schedule_tail(task_t *prev);
void scheduler_tick(int user_mode);
void sched_fork(task_t *child);
void sched_exit(task_t *child);
void wake_up_new_task(task_t *task);
int try_to_wake_up(task_t *task, unsigned int states);
void set_user_nice(task_t *task, int nice);
int set_cpus_allowed(task_t *task, unsigned long mask);
void yield(void);
void waitq_init(struct waitq *queue);
void prepare_to_wait(struct waitq *queue, struct waiter *waiter);
void finish_wait(struct waitq *queue, struct waiter *waiter);
void wake_up(struct waitq *queue);
void cpu_idle(void) __attribute__((noreturn));
extern int check_strict;
void check_locked(const struct runqueue *rq, int cpu);
void check_runqueue(struct runqueue *rq, int cpu, task_t *curr);

/* ---- processes (kernel/fork.c, kernel/exit.c, kernel/program.c, kernel/pipe.c) ---- */
union thread_union {
	struct thread_info thread_info;
	unsigned long stack[THREAD_SIZE / sizeof(unsigned long)];
};
extern union thread_union init_thread_union;
extern struct task_struct init_task;
extern spinlock_t tasklist_lock;
extern struct kmem_cache task_struct_cachep, mm_cachep;
extern task_t *child_reaper;
void fork_init(void);
void init_process(void *unused);
task_t *fork_idle(int cpu);
int do_fork(struct pt_regs *regs);
int kernel_thread(void (*function)(void *), void *argument, const char *comm);
void put_task_struct(task_t *task);
task_t *find_task_by_pid(int pid);
void do_exit(int code) __attribute__((noreturn));
int do_wait(int *status);
struct waitq *child_waitq(task_t *task);
int start_programs(const char *list);
int pipe_create(void);
long pipe_io(int fd, unsigned long user, unsigned long count, int write);
struct files_struct *files_alloc(void);
struct files_struct *files_get(struct files_struct *files);
void files_put(struct files_struct *files);
