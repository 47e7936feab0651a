/* The programs as data in the kernel image. */
	.macro	blob name
	.globl	\name\()_start, \name\()_end
	.balign	16
\name\()_start:
	.incbin	"\name\().bin"
\name\()_end:
	.endm

	.section .rodata
	blob	pi
	blob	sleeper
	blob	pair
	blob	forker
	.section .note.GNU-stack, "", @progbits
