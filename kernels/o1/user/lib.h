/* What every program needs: system calls, time, and lines of key=value pairs. */
#pragma once

#include "program.h"

struct line {
	char text[240];
	int length;
};

extern struct program_arguments *arguments;
long number(int index, long otherwise);
long syscall(long number, long a, long b, long c);
int fork(void);
void exit(int code) __attribute__((noreturn));
int wait(int *status);
int getpid(void);
long now_us(void);
long ticks_now(void);
void sleep_us(long us);
void work_us(long us);
void begin(struct line *line);
void add(struct line *line, const char *key, long value);
void end(struct line *line);
void program(void);
