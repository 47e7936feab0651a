/* Four-level page tables: all RAM in the direct map, and the pages of processes. Intel SDM vol. 3, 4.5. */
#include "kernel.h"

#define PRESENT 1
#define TABLE 0x67 /* present, writable, user, accessed, dirty */
#define LARGE 0xe3 /* 2 MiB page, present, writable */
#define ADDRESS 0x000ffffffffff000

extern pgd_t init_level4_pgt[512];
extern unsigned long level3_ident_pgt[512], level2_ident_pgt[512];
extern char _text[], _end[];
struct mm_struct init_mm = { .pgd = init_level4_pgt, .mm_users = { 2 }, .mm_count = { 2 } }; /* one count for the boot task */

unsigned long __pa(const void *address)
{
	unsigned long a = (unsigned long)address;
	return a >= KERNEL_MAP ? a - KERNEL_MAP : a - PAGE_OFFSET;
}

/* Maps the RAM of one GiB, and nothing behind its end. */
static void map_gib(unsigned long *table, unsigned long gib)
{
	for (unsigned long i = 0; i < 512; i++) {
		unsigned long address = (gib << 30) + (i << 21);

		table[i] = address < end_of_ram ? address + LARGE : 0;
	}
}

/* The boot page tables map the whole first GiB. This maps RAM alone, above it too, as 2.6.16 does. */
void map_all_memory(void)
{
	map_gib(level2_ident_pgt, 0);
	for (unsigned long gib = 1; gib << 30 < end_of_ram && gib < 512; gib++) {
		unsigned long *table = alloc_pages(0);

		map_gib(table, gib);
		level3_ident_pgt[gib] = __pa(table) | 0x63;
	}
}

/* A top level with the kernel's half in it. */
pgd_t *pgd_alloc(void)
{
	pgd_t *pgd = alloc_pages(0);

	memcpy(pgd + 256, init_level4_pgt + 256, PAGE_SIZE / 2);
	return pgd;
}

/* The last-level entry for a user address, or NULL if a table is missing and `make` does not ask for it. */
static unsigned long *entry_of(pgd_t *pgd, unsigned long address, int make)
{
	unsigned long *table = (unsigned long *)pgd;

	for (int shift = 39; shift > 12; shift -= 9) {
		unsigned long *entry = &table[address >> shift & 511];

		if (!(*entry & PRESENT)) {
			if (!make)
				return NULL;
			*entry = __pa(alloc_pages(0)) | TABLE;
		}
		table = __va(*entry & ADDRESS);
	}
	return &table[address >> 12 & 511];
}

void map_user_page(pgd_t *pgd, unsigned long address, void *page)
{
	*entry_of(pgd, address, 1) = __pa(page) | TABLE;
}

/* The page behind a user address, through the direct map, or NULL. */
void *user_page(pgd_t *pgd, unsigned long address)
{
	unsigned long *entry = address >> 47 ? NULL : entry_of(pgd, address, 0);

	return entry && *entry & PRESENT ? __va(*entry & ADDRESS) : NULL;
}

/* Calls visit for each present user page, lowest address first. */
static void each_user_page(unsigned long *table, int shift, unsigned long base, void (*visit)(unsigned long, void *, pgd_t *),
			   pgd_t *other)
{
	for (unsigned long i = 0; i < (shift == 39 ? 256 : 512); i++) {
		unsigned long address = base + (i << shift);

		if (!(table[i] & PRESENT))
			continue;
		if (shift == 12)
			visit(address, __va(table[i] & ADDRESS), other);
		else
			each_user_page(__va(table[i] & ADDRESS), shift - 9, address, visit, other);
	}
}

static void copy_one(unsigned long address, void *page, pgd_t *to)
{
	void *copy = alloc_pages(0);

	memcpy(copy, page, PAGE_SIZE);
	map_user_page(to, address, copy);
}

void copy_user_pages(pgd_t *to, pgd_t *from) { each_user_page((unsigned long *)from, 39, 0, copy_one, to); }

static void free_one(unsigned long address, void *page, pgd_t *pgd)
{
	*entry_of(pgd, address, 0) = 0;
	free_pages(page, 0);
}

void free_user_pages(pgd_t *pgd) { each_user_page((unsigned long *)pgd, 39, 0, free_one, pgd); }

static void free_tables(unsigned long *table, int shift)
{
	for (int i = 0; shift > 12 && i < (shift == 39 ? 256 : 512); i++)
		if (table[i] & PRESENT)
			free_tables(__va(table[i] & ADDRESS), shift - 9);
	free_pages(table, 0);
}

void pgd_free(pgd_t *pgd) { free_tables((unsigned long *)pgd, 39); }

/* Copies between the kernel and the current process's memory; 0, or -EFAULT with part of it possibly copied. */
int copy_user(void *kernel, unsigned long user, unsigned long count, int to_user)
{
	for (char *k = kernel; count;) {
		unsigned long offset = user % PAGE_SIZE, part = min(count, PAGE_SIZE - offset);
		char *page = user_page(current->mm->pgd, user);

		if (!page)
			return -EFAULT;
		if (to_user)
			memcpy(page + offset, k, part);
		else
			memcpy(k, page + offset, part);
		k += part;
		user += part;
		count -= part;
	}
	return 0;
}
