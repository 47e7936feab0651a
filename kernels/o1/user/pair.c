/* pair: a parent and its child send a counter to and fro through two pipes. trips counts the returns. */
#include "lib.h"

static void transfer(int call, int fd, void *data, int size)
{
	for (char *at = data; size;) {
		long moved = syscall(call, fd, (long)at, size);

		if (moved <= 0)
			exit(1);
		at += moved;
		size -= moved;
	}
}

#define receive(fd, value) transfer(0, fd, value, sizeof(*(value)))
#define send(fd, value) transfer(1, fd, value, sizeof(*(value)))

void program(void)
{
	int forth[2], back[2];
	long value = 0, trips = 0, errors = 0, next = now_us();

	syscall(22, (long)forth, 0, 0);
	syscall(22, (long)back, 0, 0);
	if (fork() == 0)
		for (;;) {
			receive(forth[0], &value);
			value++;
			send(back[1], &value);
		}
	for (;; trips++) {
		long sent = value;

		send(forth[1], &value);
		receive(back[0], &value);
		errors += value != sent + 1;
		if (now_us() >= next) {
			struct line line;

			begin(&line);
			add(&line, "trips", trips);
			add(&line, "errors", errors);
			end(&line);
			next = now_us() + arguments->report_ms * 1000;
		}
	}
}
