/* Page allocator: a list of freed pages, linked through their first words, before the memory
 * that was never used. */
#include "memory.h"

#include <stddef.h>

#include "string.h"

extern uint8_t kernel_end[];

static uint32_t next_unused;
static uint32_t memory_end;
static void **free_list;

void memory_init(uint32_t end)
{
    next_unused = page_up((uint32_t)kernel_end);
    memory_end = page_down(end);
}

void *page_alloc(void)
{
    void **page = free_list;

    if (page != NULL) {
        free_list = *page;
    } else {
        if (next_unused >= memory_end)
            return NULL;
        page = (void **)next_unused;
        next_unused += PAGE_SIZE;
    }
    return memset(page, 0, PAGE_SIZE);
}

void page_free(void *page)
{
    *(void **)page = free_list;
    free_list = page;
}
