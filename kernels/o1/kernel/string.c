#include "kernel.h"

void *memset(void *to, int byte, unsigned long count)
{
	void *end = to;
	asm volatile("rep stosb" : "+D"(end), "+c"(count) : "a"(byte) : "memory");
	return to;
}

void *memcpy(void *to, const void *from, unsigned long count)
{
	void *end = to;
	asm volatile("rep movsb" : "+D"(end), "+S"(from), "+c"(count)::"memory");
	return to;
}

int strncmp(const char *a, const char *b, unsigned long count)
{
	for (; count; a++, b++, count--)
		if (*a != *b || !*a)
			return *a - *b;
	return 0;
}

unsigned long strlen(const char *s)
{
	unsigned long length = 0;
	while (s[length])
		length++;
	return length;
}

/* A decimal number with an optional sign; *end is where it stops. */
long simple_strtol(const char *s, const char **end)
{
	long value = 0;
	int negative = *s == '-';

	for (s += negative; *s >= '0' && *s <= '9'; s++)
		value = value * 10 + (*s - '0');
	if (end)
		*end = s;
	return negative ? -value : value;
}
