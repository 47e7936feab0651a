/*
 * Two threads that behave as the CPUs of a translating QEMU which share a lock: each takes it, works in the middle of an
 * "instruction" for a while, lets it go, and then runs what the starts of translated blocks look like. It counts the
 * signals SIGRTMIN that it gets, which queue up, and prints the count at each SIGRTMIN + 1.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A frame pointer, and a load from a negative offset, as gen_tb_start() has them. */
__attribute__((noinline, optimize("no-omit-frame-pointer"))) static void blocks(void)
{
    volatile long counter[4] = { 0 };
    for (int i = 0; i < 100000; i++)
        __asm__ volatile(".rept 64\n"
                         "movl -16(%%rbp), %%ebx\n"
                         "testl %%ebx, %%ebx\n"
                         ".byte 0x0f, 0x8c\n.long 0\n"
                         ".endr" : : : "ebx", "cc");
    counter[0]++;
}

__attribute__((noinline)) static void instruction(void)
{
    volatile unsigned long value = 1;
    for (int i = 0; i < 10000000; i++)
        value = value * 3 + 1;
}

static atomic_int signals;

static void count(int signal)
{
    char line[16];
    if (signal == SIGRTMIN)
        signals++;
    else
        write(1, line, snprintf(line, sizeof line, "%d\n", signals)) < 0 ? _exit(1) : (void)0;
}

static void *run(void *unused)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        instruction();
        pthread_mutex_unlock(&lock);
        blocks();
    }
    return unused;
}

int main(void)
{
    pthread_t threads[2];
    signal(SIGRTMIN, count);
    signal(SIGRTMIN + 1, count);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, run, NULL);
    puts("up");
    fflush(stdout);
    pthread_join(threads[0], NULL);
    return 0;
}
