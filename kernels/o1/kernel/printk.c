/* The console: a 16550 serial port, which prints one line at a time. */
#include "kernel.h"

#define PORT 0x3f8

static spinlock_t console_lock = SPIN_LOCK_UNLOCKED;
static int dying;

void serial_init(void)
{
	outb(PORT + 1, 0); /* no interrupts */
	outb(PORT + 3, 0x80); /* divisor */
	outb(PORT + 0, 1); /* 115200 */
	outb(PORT + 1, 0);
	outb(PORT + 3, 3); /* 8 bits, no parity */
	outb(PORT + 2, 7); /* buffer on and empty */
	outb(PORT + 4, 3);
}

void console_write(const char *text, unsigned long count)
{
	unsigned long flags = spin_lock_irqsave(&console_lock);

	for (; count; text++, count--) {
		while (!(inb(PORT + 5) & 0x20))
			cpu_relax();
		if (*text == '\n')
			outb(PORT, '\r');
		outb(PORT, *text);
	}
	spin_unlock_irqrestore(&console_lock, flags);
}

static char *put_number(char *to, unsigned long value, unsigned int base)
{
	char digits[24];
	int n = 0;

	do
		digits[n++] = "0123456789abcdef"[value % base];
	while (value /= base);
	while (n)
		*to++ = digits[--n];
	return to;
}

/* %s %c %d %u %x with an optional l; text that does not fit is cut. */
static unsigned long format_line(char *to, unsigned long size, const char *format, __builtin_va_list args)
{
	char *start = to, *end = to + size - 32;

	for (; *format && to < end; format++) {
		int is_long = 0;

		if (*format != '%') {
			*to++ = *format;
			continue;
		}
		if (*++format == 'l') {
			is_long = 1;
			format++;
		}
		if (*format == 's') {
			for (const char *s = __builtin_va_arg(args, const char *); *s && to < end; s++)
				*to++ = *s;
		} else if (*format == 'c') {
			*to++ = __builtin_va_arg(args, int);
		} else if (*format == 'd') {
			long value = is_long ? __builtin_va_arg(args, long) : __builtin_va_arg(args, int);

			if (value < 0)
				*to++ = '-';
			to = put_number(to, value < 0 ? -value : value, 10);
		} else {
			unsigned long value = is_long ? __builtin_va_arg(args, unsigned long) : __builtin_va_arg(args, unsigned int);

			to = put_number(to, value, *format == 'x' ? 16 : 10);
		}
	}
	return to - start;
}

void printk(const char *format, ...)
{
	char line[256];
	__builtin_va_list args;

	__builtin_va_start(args, format);
	console_write(line, format_line(line, sizeof(line), format, args));
	__builtin_va_end(args);
}

/* The kernel itself is wrong: prints the fact on a line of its own and stops every CPU for good. */
void bug(const char *format, ...)
{
	char line[256] = "\nBUG: ";
	unsigned long length;
	__builtin_va_list args;

	local_irq_disable();
	if (__atomic_exchange_n(&dying, 1, __ATOMIC_SEQ_CST)) /* another CPU was first */
		for (;;)
			asm volatile("hlt");
#ifdef CONFIG_SMP
	stop_other_cpus();
	console_lock = SPIN_LOCK_UNLOCKED; /* its holder may just have been stopped */
#endif
	__builtin_va_start(args, format);
	length = 6 + format_line(line + 6, sizeof(line) - 7, format, args);
	__builtin_va_end(args);
	line[length++] = '\n';
	console_write(line, length);
	console_write("System halted.\n", 15);
	for (;;)
		asm volatile("hlt");
}
