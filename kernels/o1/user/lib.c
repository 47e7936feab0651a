#include "lib.h"

struct program_arguments *arguments;

/* The program's n-th number on the command line, or the given default. */
long number(int index, long otherwise) { return index < arguments->count ? arguments->numbers[index] : otherwise; }

long syscall(long number, long a, long b, long c)
{
	long result;
	asm volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}

int fork(void) { return syscall(57, 0, 0, 0); }
int wait(int *status) { return syscall(61, -1, (long)status, 0); }
int getpid(void) { return syscall(39, 0, 0, 0); }
void exit(int code)
{
	for (;;)
		syscall(60, code, 0, 0);
}

long now_us(void)
{
	long time[2];
	syscall(228, 1, (long)time, 0);
	return time[0] * 1000000 + time[1] / 1000;
}

/* Ticks of the kernel's clock, 1/HZ s each, since it started. */
long ticks_now(void)
{
	long ticks[4];
	return syscall(100, (long)ticks, 0, 0);
}

void sleep_us(long us)
{
	long time[2] = { us / 1000000, us % 1000000 * 1000 };
	syscall(35, (long)time, 0, 0);
}

/* Keeps the CPU busy for a given wall-clock time. */
void work_us(long us)
{
	for (long until = now_us() + us; now_us() < until;)
		for (volatile int i = 0; i < 200; i++)
			;
}

static void put(struct line *line, const char *text)
{
	while (*text && line->length < (int)sizeof(line->text) - 1)
		line->text[line->length++] = *text++;
}

static void put_number(struct line *line, long value)
{
	char digits[24], *at = digits + sizeof(digits) - 1;
	unsigned long rest = value < 0 ? -value : value;

	*at = 0;
	do
		*--at = '0' + rest % 10;
	while (rest /= 10);
	if (value < 0)
		*--at = '-';
	put(line, at);
}

void add(struct line *line, const char *key, long value)
{
	put(line, " ");
	put(line, key);
	put(line, "=");
	put_number(line, value);
}

/* Begins a line with NAME pid= cpu= nice= ticks=; ticks is the program's CPU time in 1/HZ s. */
void begin(struct line *line)
{
	long ticks[4];
	int cpu;

	line->length = 0;
	put(line, arguments->name);
	add(line, "pid", getpid());
	syscall(309, (long)&cpu, 0, 0);
	add(line, "cpu", cpu);
	add(line, "nice", 20 - syscall(140, 0, 0, 0));
	syscall(100, (long)ticks, 0, 0);
	add(line, "ticks", ticks[0] + ticks[1]);
}

/* Ends the line with the time in milliseconds and writes it in one call. */
void end(struct line *line)
{
	add(line, "t", now_us() / 1000);
	line->text[line->length++] = '\n';
	syscall(1, 1, (long)line->text, line->length);
}

__attribute__((section(".text.start"))) void _start(struct program_arguments *given)
{
	arguments = given;
	program();
	exit(0);
}
