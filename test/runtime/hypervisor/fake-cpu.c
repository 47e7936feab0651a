/* A thread that stands for a vCPU: it sleeps unless it is told to run. No signal reaches it, and no engine of a language
 * works in it, which would wake it for matters of its own. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum order { REST, RUN, END };

struct cpu {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t told, done;
  enum order order;
  int tid, run_ms;
};

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static void *work(void *argument) {
  struct cpu *cpu = argument;
  pthread_mutex_lock(&cpu->lock);
  cpu->tid = gettid();
  do {
    pthread_cond_signal(&cpu->done);
    while (cpu->order == REST) pthread_cond_wait(&cpu->told, &cpu->lock);
    for (double end = now_ms() + cpu->run_ms; cpu->order == RUN && now_ms() < end;);
    if (cpu->order == RUN) cpu->order = REST;
  } while (cpu->order != END);
  pthread_mutex_unlock(&cpu->lock);
  return NULL;
}

static void await_rest(struct cpu *cpu) {
  while (cpu->tid == 0 || cpu->order == RUN) pthread_cond_wait(&cpu->done, &cpu->lock);
}

static void tell(struct cpu *cpu, enum order order) {
  cpu->order = order;
  pthread_cond_signal(&cpu->told);
}

/* NULL if no thread can be made. */
struct cpu *fake_cpu_start(void) {
  struct cpu *cpu = calloc(1, sizeof *cpu);
  sigset_t all, before;
  sigfillset(&all);
  pthread_mutex_init(&cpu->lock, NULL);
  pthread_cond_init(&cpu->told, NULL);
  pthread_cond_init(&cpu->done, NULL);
  /* A thread begins with the mask of the one that makes it. */
  pthread_sigmask(SIG_BLOCK, &all, &before);
  int failed = pthread_create(&cpu->thread, NULL, work, cpu);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed) return NULL;
  pthread_mutex_lock(&cpu->lock);
  await_rest(cpu);
  pthread_mutex_unlock(&cpu->lock);
  return cpu;
}

int fake_cpu_tid(struct cpu *cpu) { return cpu->tid; }

/* Keeps it running for so long, and whoever calls waiting. */
void fake_cpu_run(struct cpu *cpu, int ms) {
  pthread_mutex_lock(&cpu->lock);
  cpu->run_ms = ms;
  tell(cpu, RUN);
  await_rest(cpu);
  pthread_mutex_unlock(&cpu->lock);
}

void fake_cpu_stop(struct cpu *cpu) {
  pthread_mutex_lock(&cpu->lock);
  tell(cpu, END);
  pthread_mutex_unlock(&cpu->lock);
  pthread_join(cpu->thread, NULL);
  free(cpu);
}
