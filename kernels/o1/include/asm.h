/* Instructions that C cannot express. */
#pragma once

static inline void outb(unsigned short port, unsigned char value) { asm volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outw(unsigned short port, unsigned short value) { asm volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static inline unsigned char inb(unsigned short port)
{
	unsigned char value;
	asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline void cpu_relax(void) { asm volatile("pause" ::: "memory"); }
static inline void local_irq_disable(void) { asm volatile("cli" ::: "memory"); }
static inline void local_irq_enable(void) { asm volatile("sti" ::: "memory"); }
static inline unsigned long read_flags(void)
{
	unsigned long flags;
	asm volatile("pushfq; popq %0" : "=r"(flags)::"memory");
	return flags;
}
static inline unsigned long local_irq_save(void)
{
	unsigned long flags = read_flags();
	local_irq_disable();
	return flags;
}
static inline void local_irq_restore(unsigned long flags)
{
	asm volatile("pushq %0; popfq" ::"r"(flags) : "memory", "cc");
}
static inline void safe_halt(void) { asm volatile("sti; hlt" ::: "memory"); }
static inline unsigned long rdtsc(void)
{
	unsigned int low, high;
	asm volatile("rdtsc" : "=a"(low), "=d"(high));
	return (unsigned long)high << 32 | low;
}
static inline void wrmsr(unsigned int msr, unsigned long value)
{
	asm volatile("wrmsr" ::"c"(msr), "a"((unsigned int)value), "d"((unsigned int)(value >> 32)) : "memory");
}
static inline void write_cr3(unsigned long physical) { asm volatile("movq %0, %%cr3" ::"r"(physical) : "memory"); }
static inline unsigned long read_cr2(void)
{
	unsigned long value;
	asm volatile("movq %%cr2, %0" : "=r"(value));
	return value;
}
