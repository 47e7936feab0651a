/*
 * Memory: blocks of one or two pages, cleared, and small objects cut from pages. Blocks come from free lists, else
 * from the bottom of the regions of RAM.
 */
#include "kernel.h"

static struct region {
	unsigned long next, end;
} regions[16];
static int nr_regions;
static spinlock_t alloc_lock = SPIN_LOCK_UNLOCKED;
static void *free_blocks[2];
unsigned long end_of_ram;

/* Adds usable RAM, physical addresses in bytes. */
void add_memory(unsigned long start, unsigned long end)
{
	start = (start + 2 * PAGE_SIZE - 1) & -(2UL * PAGE_SIZE);
	end &= -(2UL * PAGE_SIZE);
	if (end > end_of_ram)
		end_of_ram = end;
	if (start < end && nr_regions < 16)
		regions[nr_regions++] = (struct region){ start, end };
}

/* 1 << order pages, order 0 or 1, aligned to their size and cleared. Running out is a bug: programs are few. */
void *alloc_pages(int order)
{
	unsigned long flags = spin_lock_irqsave(&alloc_lock), size = PAGE_SIZE << order;
	void *block = free_blocks[order];

	if (block) {
		free_blocks[order] = *(void **)block;
	} else {
		struct region *region = regions;

		while (region < regions + nr_regions && ((region->next + size - 1) & -size) + size > region->end)
			region++;
		if (region == regions + nr_regions)
			bug("out of memory");
		block = __va((region->next + size - 1) & -size);
		region->next = __pa(block) + size;
	}
	spin_unlock_irqrestore(&alloc_lock, flags);
	return memset(block, 0, size);
}

void free_pages(void *pages, int order)
{
	unsigned long flags = spin_lock_irqsave(&alloc_lock);

	*(void **)pages = free_blocks[order];
	free_blocks[order] = pages;
	spin_unlock_irqrestore(&alloc_lock, flags);
}

/* A cleared object of the cache's size (at most a page), aligned to 16 bytes. */
void *kmem_alloc(struct kmem_cache *cache)
{
	unsigned long flags = spin_lock_irqsave(&cache->lock);
	unsigned int size = (cache->size + 15) & -16;
	void *object;

	if (!cache->free) {
		char *page = alloc_pages(0);

		for (unsigned int offset = 0; offset + size <= PAGE_SIZE; offset += size) {
			*(void **)(page + offset) = cache->free;
			cache->free = page + offset;
		}
	}
	object = cache->free;
	cache->free = *(void **)object;
	spin_unlock_irqrestore(&cache->lock, flags);
	return memset(object, 0, cache->size);
}

void kmem_free(struct kmem_cache *cache, void *object)
{
	unsigned long flags = spin_lock_irqsave(&cache->lock);

	*(void **)object = cache->free;
	cache->free = object;
	spin_unlock_irqrestore(&cache->lock, flags);
}
