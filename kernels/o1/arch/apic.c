/* The local APIC: timer, interrupts between processors, starting them. Registers: Intel SDM vol. 3, chapter 11. */
#include "kernel.h"

#define APIC_ID 0x20
#define APIC_TASK_PRIORITY 0x80
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define APIC_ICR 0x300
#define APIC_ICR_HIGH 0x310
#define APIC_TIMER 0x320
#define APIC_LINT0 0x350
#define APIC_LINT1 0x360
#define APIC_TIMER_INITIAL 0x380
#define APIC_TIMER_CURRENT 0x390
#define APIC_TIMER_DIVIDE 0x3e0
#define MASKED 0x10000
#define PERIODIC 0x20000
#define ALL_BUT_SELF 0xc0000

#define PIT_HZ 1193182
#define CALIBRATION_HZ 100 /* calibrate over 1/100 s */

static unsigned int timer_count; /* APIC timer ticks in 1/HZ s */
unsigned long tsc_khz;

static unsigned int apic_read(int reg) { return *(volatile unsigned int *)(APIC_BASE + reg); }
static void apic_write(int reg, unsigned int value) { *(volatile unsigned int *)(APIC_BASE + reg) = value; }
void apic_eoi(void) { apic_write(APIC_EOI, 0); }

static void apic_enable(void)
{
	apic_write(APIC_TASK_PRIORITY, 0);
	apic_write(APIC_SPURIOUS, 0x100 | SPURIOUS_VECTOR);
	apic_write(APIC_LINT0, MASKED);
	apic_write(APIC_LINT1, MASKED);
	apic_write(APIC_TIMER_DIVIDE, 3); /* by 16 */
}

/* Measures the APIC timer and the time-stamp counter against channel 2 of the PIT. Boot CPU, interrupts off. */
void calibrate(void)
{
	unsigned long start;

	outb(0x21, 0xff); /* the old interrupt controllers stay silent */
	outb(0xa1, 0xff);
	apic_enable();
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0);
	outb(0x42, (PIT_HZ / CALIBRATION_HZ) & 0xff);
	outb(0x42, (PIT_HZ / CALIBRATION_HZ) >> 8);
	apic_write(APIC_TIMER, MASKED);
	apic_write(APIC_TIMER_INITIAL, 0xffffffff);
	start = rdtsc();
	while (!(inb(0x61) & 0x20))
		cpu_relax();
	tsc_khz = (rdtsc() - start) / (1000 / CALIBRATION_HZ);
	timer_count = (unsigned long)(0xffffffff - apic_read(APIC_TIMER_CURRENT)) * CALIBRATION_HZ / HZ;
}

void setup_local_apic(void)
{
	apic_enable();
	apic_write(APIC_TIMER, PERIODIC | LOCAL_TIMER_VECTOR);
	apic_write(APIC_TIMER_INITIAL, timer_count);
}

static void send(unsigned int apic_id, unsigned int command)
{
	unsigned long flags = local_irq_save();

	apic_write(APIC_ICR_HIGH, apic_id << 24);
	apic_write(APIC_ICR, command);
	while (apic_read(APIC_ICR) & 0x1000)
		cpu_relax();
	local_irq_restore(flags);
}

void start_cpu(int cpu, unsigned long trampoline)
{
	send(cpu, 0x4500); /* INIT */
	for (unsigned long start = rdtsc(); rdtsc() - start < tsc_khz / 2;)
		cpu_relax();
	send(cpu, 0x4600 | trampoline >> 12); /* start up there */
}

void smp_send_reschedule(int cpu) { send(cpu, RESCHEDULE_VECTOR); }
void stop_other_cpus(void) { send(0, ALL_BUT_SELF | 0x400); }
