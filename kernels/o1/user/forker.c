/*
 * forker[/CHILDREN[/PAUSE_MS]]: starts that many children at once. Each works for a while and exits with its own
 * number. The parent waits for all, pauses, and begins again. errors counts wrong exit codes.
 */
#include "lib.h"

void program(void)
{
	long width = number(0, 3), pause = number(1, 20) * 1000, children = 0, errors = 0, next = now_us();

	for (;;) {
		long expected = 0, got = 0;

		for (long i = 1; i <= width; i++) {
			if (fork() == 0) {
				work_us(1000 * i);
				exit(i);
			}
			expected += i;
		}
		for (long i = 1; i <= width; i++) {
			int status = 0;

			if (wait(&status) > 0)
				children++;
			got += status >> 8;
		}
		errors += got != expected;
		sleep_us(pause);
		if (now_us() >= next) {
			struct line line;

			begin(&line);
			add(&line, "children", children);
			add(&line, "errors", errors);
			end(&line);
			next = now_us() + arguments->report_ms * 1000;
		}
	}
}
