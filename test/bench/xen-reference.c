/*
 * What reading one word of a guest costs with Xen's libraries alone, done as the paper's prototype did it: pause the
 * domain, translate the address, map the page, read the word, unmap, unpause; everything anew each time.
 * `xen-reference DOMID ADDRESS ROUNDS` prints one line of JSON: nanoseconds of each step by round.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>

enum { PAUSE, TRANSLATE, MAP, READ, UNMAP, UNPAUSE, CYCLE, STEPS };
static const char *const names[STEPS] = { "pause", "translate", "map", "read", "unmap", "unpause", "cycle" };

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * UINT64_C(1000000000) + t.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

int main(int argc, char **argv)
{
	xc_interface *xc;
	xenforeignmemory_handle *memory;
	uint32_t domid;
	uint64_t address, *spent[STEPS], word = 0;
	unsigned rounds;

	if (argc != 4)
		return 2;
	domid = strtoul(argv[1], NULL, 10);
	address = strtoull(argv[2], NULL, 0);
	rounds = strtoul(argv[3], NULL, 10);
	xc = xc_interface_open(NULL, NULL, 0);
	memory = xenforeignmemory_open(NULL, 0);
	if (!xc || !memory)
		die("open");
	for (int step = 0; step < STEPS; step++)
		if (!(spent[step] = calloc(rounds, sizeof **spent)))
			die("calloc");

	for (unsigned i = 0; i < rounds; i++) {
		struct timespec rest = { 0, 2000000 };
		uint64_t at[STEPS];
		unsigned long frame;
		xen_pfn_t frames[1];
		int errors[1];
		char *page;

		at[0] = now();
		if (xc_domain_pause(xc, domid))
			die("pause");
		at[1] = now();
		frame = xc_translate_foreign_address(xc, domid, 0, address);
		at[2] = now();
		frames[0] = frame;
		page = frame ? xenforeignmemory_map(memory, domid, PROT_READ, 1, frames, errors) : NULL;
		if (!page || errors[0]) {
			xc_domain_unpause(xc, domid);
			die("map");
		}
		at[3] = now();
		word = *(volatile uint64_t *)(page + (address & 0xff8));
		at[4] = now();
		xenforeignmemory_unmap(memory, page, 1);
		at[5] = now();
		xc_domain_unpause(xc, domid);
		at[6] = now();
		for (int step = 0; step < CYCLE; step++)
			spent[step][i] = at[step + 1] - at[step];
		spent[CYCLE][i] = at[6] - at[0];
		/* The guest goes on for a moment, as it does between the ticks of a scheduler. */
		nanosleep(&rest, NULL);
	}

	printf("{\"word\":\"%#" PRIx64 "\"", word);
	for (int step = 0; step < STEPS; step++) {
		printf(",\"%s\":[", names[step]);
		for (unsigned i = 0; i < rounds; i++)
			printf("%s%" PRIu64, i ? "," : "", spent[step][i]);
		printf("]");
	}
	printf("}\n");
	return 0;
}
