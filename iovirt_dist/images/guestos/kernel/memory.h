/* Physical memory in pages of 4 KiB. The kernel sees it at its physical addresses. */
#ifndef KERNEL_MEMORY_H
#define KERNEL_MEMORY_H

#include <stdint.h>

enum { PAGE_SIZE = 4096 };

/* Manages the pages from the kernel's end up to `end`. */
void memory_init(uint32_t end);

/* One zeroed page, or NULL. */
void *page_alloc(void);
void page_free(void *page);

static inline uint32_t page_down(uint32_t address)
{
    return address & ~(uint32_t)(PAGE_SIZE - 1);
}

static inline uint32_t page_up(uint32_t address)
{
    return page_down(address + PAGE_SIZE - 1);
}

#endif
