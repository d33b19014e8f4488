/* A piece of physical memory. All of it is mapped one to one, so a driver may take its address for
 * DMA and the kernel may use it as a pointer. */
#ifndef KERNEL_SEGMENT_H
#define KERNEL_SEGMENT_H

#include <stdint.h>

struct segment {
    uint32_t address;
    uint32_t length; /* bytes */
};

#endif
