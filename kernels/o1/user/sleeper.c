/*
 * sleeper[/SLEEP_MS[/WORK_MS]]: sleeps, works, and sleeps again. response_us is the average time from the due wake-up
 * to the moment it runs; the kernel's clock ticks every 4 ms, so up to two ticks of it are not the scheduler's. late_ticks
 * is the sum of the ticks between the tick that woke it and the moment it ran.
 */
#include "lib.h"

void program(void)
{
	long sleep = number(0, 40) * 1000, work = number(1, 4) * 1000;
	long ticks = number(0, 40) / 4 + (number(0, 40) % 4 != 0) + 1; /* as the kernel rounds it */
	long wakes = 0, sum = 0, worst = 0, late = 0, next = now_us() + arguments->report_ms * 1000;

	for (;;) {
		long due = now_us() + sleep, start = ticks_now(), response;

		sleep_us(sleep);
		response = now_us() - due;
		late += ticks_now() - start - ticks;
		wakes++;
		sum += response;
		if (response > worst)
			worst = response;
		work_us(work);
		if (now_us() >= next) {
			struct line line;

			begin(&line);
			add(&line, "wakes", wakes);
			add(&line, "response_us", sum / wakes);
			add(&line, "worst_us", worst);
			add(&line, "late_ticks", late);
			end(&line);
			next = now_us() + arguments->report_ms * 1000;
		}
	}
}
