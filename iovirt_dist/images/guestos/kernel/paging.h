/* Address spaces. The kernel and the registers of devices are mapped in each of them at their
 * physical addresses, for ring 0 only; a program has what is between, up to USER_END. */
#ifndef KERNEL_PAGING_H
#define KERNEL_PAGING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KERNEL_SPACE_END = 0x04000000, /* 64 MiB: more memory than that is left unused */
    USER_START = 0x08000000,
};
#define USER_END 0xC0000000u

/* Maps memory up to `end` one to one (but not page 0: a NULL pointer shall fault), then enables
 * paging. */
void paging_init(uint32_t end);

/* Takes the page at `address` out of the kernel's mapping. */
void paging_unmap_kernel_page(const void *address);

/* Maps device registers one to one and uncached, for ring 0 only. Before the first space is
 * created. False: they do not lie above the programs' addresses, or there is no memory. */
bool paging_map_device(uint32_t address, uint32_t length);

/* A page directory is its own physical address. NULL: no memory. */
uint32_t *space_create(void);
uint32_t *space_copy(const uint32_t *from);
void space_destroy(uint32_t *space);

/* Changes to `space`, or to the kernel's own if that is NULL. */
void space_activate(const uint32_t *space);

/* Maps fresh zeroed pages over [start, end); pages that are there stay, and become writable if
 * asked for. False: no memory, or the range is not a program's. */
bool space_map(uint32_t *space, uint32_t start, uint32_t end, bool writable);
void space_unmap(uint32_t *space, uint32_t start, uint32_t end);

/* The kernel's address of the byte at `address` of `space`, NULL if a program may not read it
 * (or, with `writable`, write it). */
void *space_translate(const uint32_t *space, uint32_t address, bool writable);

#endif
