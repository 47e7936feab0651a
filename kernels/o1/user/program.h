/* The interface between the kernel and the programs in its image. */
#pragma once

#define USER_TEXT 0x400000
#define USER_STACK_TOP 0x7ffffffff000
#define USER_STACK_PAGES 4
#define PROGRAM_NUMBERS 4

/* Lies on top of a new program's stack; rdi has its address. */
struct program_arguments {
	char name[16];
	long report_ms; /* time between two lines on the console */
	long count, numbers[PROGRAM_NUMBERS]; /* the /NUMBERs behind the name */
};
