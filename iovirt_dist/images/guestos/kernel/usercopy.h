/* Memory of the calling process, which the kernel never touches unchecked. */
#ifndef KERNEL_USERCOPY_H
#define KERNEL_USERCOPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "segment.h"

/* True if the program may read (with `writable`: write) all of it. */
bool user_range_ok(uint32_t address, uint32_t length, bool writable);

/* 0, or -EFAULT with nothing copied. */
int copy_from_user(void *to, uint32_t from, uint32_t length);
int copy_to_user(uint32_t to, const void *from, uint32_t length);

/* The length without the terminator, -EFAULT, or -E2BIG if there is none within `size`. */
int copy_string_from_user(char *to, uint32_t from, uint32_t size);

/* Where memory lies that was found good: at most `maximum` segments (at least 1), in order, pages
 * that lie one behind the other being one. Their number; `length` is cut to what they cover, at a
 * page's end. */
uint32_t user_segments(uint32_t address, uint32_t *length, struct segment *segments,
                       uint32_t maximum);

#endif
