/*
 * pi[N]: computes pi for ever, a CPU burner. progress counts computations, each of pi to 28 places by Machin's formula
 * pi/4 = 4 arctan(1/5) - arctan(1/239); errors counts wrong results, so that lost registers would show.
 */
#include "lib.h"

#define WORDS 4 /* a fixed-point number: one word before the point, the others after it, 32 bits each */

static void divide(unsigned int *number, unsigned int by)
{
	unsigned long rest = 0;

	for (int i = 0; i < WORDS; i++) {
		rest = rest << 32 | number[i];
		number[i] = rest / by;
		rest %= by;
	}
}

static void accumulate(unsigned int *sum, const unsigned int *term, int negative)
{
	long carry = 0;

	for (int i = WORDS - 1; i >= 0; i--) {
		carry += negative ? (long)sum[i] - term[i] : (long)sum[i] + term[i];
		sum[i] = carry;
		carry >>= 32;
	}
}

/* Adds factor * arctan(1/x) to sum, or takes it away. */
static void arctan(unsigned int *sum, unsigned int factor, unsigned int x, int negative)
{
	unsigned int power[WORDS] = { factor }, term[WORDS];

	divide(power, x);
	for (unsigned int n = 1;; n += 2) {
		unsigned int any = 0;

		for (int i = 0; i < WORDS; i++)
			any |= term[i] = power[i];
		if (!any)
			return;
		divide(term, n);
		accumulate(sum, term, negative);
		divide(power, x * x);
		negative = !negative;
	}
}

void program(void)
{
	long progress = 0, errors = 0, next = now_us();

	for (;;) {
		unsigned int pi[WORDS] = { 0 };

		for (int i = 0; i < 10; i++) {
			for (int w = 0; w < WORDS; w++)
				pi[w] = 0;
			arctan(pi, 16, 5, 0);
			arctan(pi, 4, 239, 1);
			progress++;
			/* 3.243F6A8885A308D3... in hexadecimal; the last word is rounded */
			errors += pi[0] != 3 || pi[1] != 0x243f6a88 || pi[2] != 0x85a308d3;
		}
		if (now_us() >= next) {
			struct line line;

			begin(&line);
			add(&line, "progress", progress);
			add(&line, "errors", errors);
			end(&line);
			next = now_us() + arguments->report_ms * 1000;
		}
	}
}
