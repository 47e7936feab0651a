/* A process whose threads come and go, as those do that read and write a QEMU's disks, beside two that stay. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void *stays(void *unused) {
  for (;;) pause();
  return unused;
}

static void *goes(void *unused) { return unused; }

int main(void) {
  pthread_t thread;
  for (int i = 0; i < 2; i++) pthread_create(&thread, NULL, stays, NULL);
  puts("up");
  fflush(stdout);
  for (;;) {
    pthread_t brief[8];
    for (int i = 0; i < 8; i++) pthread_create(&brief[i], NULL, goes, NULL);
    for (int i = 0; i < 8; i++) pthread_join(brief[i], NULL);
  }
}
