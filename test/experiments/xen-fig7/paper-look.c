/*
 * What the paper's prototype did at each tick, with Xen's libraries alone: pauses the domain, reads the task on its CPU
 * and those in its run queue word by word, each address translated by the hypervisor and each page mapped and unmapped
 * for that word, and lets the domain go on. `paper-look DOMID INTERVAL_US RUNQUEUE CURR ROOT NODE LEFT RIGHT PID COMM
 * PRIO` does so until SIGTERM, and then prints the number of looks and the names that the last one has seen. The numbers
 * after RUNQUEUE are offsets: of the task on the CPU and the tree's root in the run queue, of the tree's node in a task,
 * of a node's children in it, and of pid, name and priority in a task.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

/* Nothing that is longer is a tree of a guest of these experiments. */
enum { MOST = 100, PAGE = 4096 };
enum { DOMID = 1, INTERVAL, RUNQUEUE, CURR, ROOT, NODE, LEFT, RIGHT, PID, COMM, PRIO, ARGUMENTS };

static xc_interface *xc;
static xenforeignmemory_handle *memory;
static uint32_t domid;
static volatile sig_atomic_t ended;

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

static void die(const char *what)
{
	perror(what);
	if (xc)
		xc_domain_unpause(xc, domid);
	exit(1);
}

static uint64_t word(uint64_t address)
{
	xen_pfn_t frame = xc_translate_foreign_address(xc, domid, 0, address);
	int error = 0;
	char *page = frame ? xenforeignmemory_map(memory, domid, PROT_READ, 1, &frame, &error) : NULL;
	uint64_t value;

	if (!page || error)
		die("map");
	memcpy(&value, page + address % PAGE, sizeof value);
	xenforeignmemory_unmap(memory, page, 1);
	return value;
}

int main(int argc, char **argv)
{
	uint64_t number[ARGUMENTS] = { 0 }, tasks[MOST], nodes[MOST], looks = 0;
	char names[MOST][17];
	struct timespec next;
	unsigned count = 0;

	if (argc != ARGUMENTS)
		return 2;
	for (int i = 1; i < ARGUMENTS; i++)
		number[i] = strtoull(argv[i], NULL, 0);
	domid = number[DOMID];
	signal(SIGTERM, end);
	xc = xc_interface_open(NULL, NULL, 0);
	memory = xenforeignmemory_open(NULL, 0);
	if (!xc || !memory)
		die("open");

	clock_gettime(CLOCK_MONOTONIC, &next);
	while (!ended) {
		unsigned n = 0;

		count = 0;
		if (xc_domain_pause(xc, domid))
			die("pause");
		tasks[count++] = word(number[RUNQUEUE] + number[CURR]);
		nodes[n++] = word(number[RUNQUEUE] + number[ROOT]);
		for (unsigned i = 0; i < n && count < MOST && n + 2 <= MOST; i++) {
			if (!nodes[i])
				continue;
			tasks[count++] = nodes[i] - number[NODE];
			nodes[n++] = word(nodes[i] + number[LEFT]);
			nodes[n++] = word(nodes[i] + number[RIGHT]);
		}
		for (unsigned i = 0; i < count; i++) {
			uint64_t parts[2] = { word(tasks[i] + number[COMM]), word(tasks[i] + number[COMM] + 8) };

			memcpy(names[i], parts, 16);
			names[i][16] = 0;
			(void)word(tasks[i] + number[PID]);
			(void)word(tasks[i] + number[PRIO]);
		}
		xc_domain_unpause(xc, domid);
		looks++;

		next.tv_nsec += number[INTERVAL] % 1000000 * 1000;
		next.tv_sec += number[INTERVAL] / 1000000 + next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
	printf("{\"looks\":%" PRIu64 ",\"seen\":[", looks);
	for (unsigned i = 0; i < count; i++)
		printf("%s\"%s\"", i ? "," : "", names[i]);
	printf("]}\n");
	return 0;
}
