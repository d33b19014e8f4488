/* The kernel option virtio_mmio.device=SIZE@BASE:IRQ, as Linux has it (Documentation/admin-guide/
 * kernel-parameters.txt): where a virtio device has its registers. */
#ifndef LIB_WINDOW_H
#define LIB_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_OPTION "virtio_mmio.device"

struct window {
    uint32_t size; /* bytes */
    uint32_t base; /* physical address */
    uint32_t irq;
};

/* Reads the option's value; a device number (":ID") behind it is ignored. False: it is malformed,
 * or the window does not lie below 4 GiB. */
bool parse_window(const char *text, struct window *window);

#endif
