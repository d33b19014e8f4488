/* The block layer: bytes of /dev/vda to sectors of whichever driver found a disk. */
#ifndef KERNEL_BLOCK_H
#define KERNEL_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

enum { SECTOR_SIZE = 512, REQUEST_SECTORS = 256 };

/* A driver of one disk. Its functions are called in a process, one at a time, and may block.
 * Buffers are kernel memory, physically contiguous and mapped one to one, so that a driver that
 * uses DMA may take their addresses as they are. Results: 0 or a negative error. */
struct block_driver {
    const char *name;                        /* as in the option disk=NAME */
    bool (*probe)(void);                     /* says what it found; false: no disk */
    uint64_t (*capacity)(void);              /* sectors */
    int (*read)(uint64_t sector, uint32_t count, void *buffer);
    int (*write)(uint64_t sector, uint32_t count, const void *buffer);
    int (*flush)(void);
};

/* Chooses the driver by its name and probes it. */
void block_init(const char *name);

/* Makes what was written durable; nothing to do if nothing was. */
int block_sync(void);

extern const struct block_driver ata_driver;

#endif
