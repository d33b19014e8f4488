/* The block layer: bytes of /dev/vda to sectors of whichever driver found a disk. */
#ifndef KERNEL_BLOCK_H
#define KERNEL_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "segment.h"

enum { SECTOR_SIZE = 512, REQUEST_SECTORS = 256 };

/* A driver of one disk. Its functions are called in a process, one at a time, and may block.
 * Requests begin and end with a block, and their segments have whole blocks each. Results: 0 or a
 * negative error. */
struct block_driver {
    const char *name;            /* as in the option disk=NAME */
    bool gathers;                /* takes many segments of any sum; else one of REQUEST_SECTORS */
    bool (*probe)(void);         /* says what it found; false: no disk */
    uint64_t (*capacity)(void);  /* sectors */
    uint32_t (*block_size)(void); /* bytes, a power of two up to a page; NULL: a sector */
    bool (*read_only)(void);     /* NULL: never */
    int (*read)(uint64_t sector, const struct segment *segments, uint32_t count);
    int (*write)(uint64_t sector, const struct segment *segments, uint32_t count);
    int (*flush)(void);
};

/* Probes the driver of that name; NULL: one after another, until one finds a disk. */
void block_init(const char *name);

/* Makes what was written durable; nothing to do if nothing was. */
int block_sync(void);

extern const struct block_driver ata_driver, virtio_driver;

#endif
