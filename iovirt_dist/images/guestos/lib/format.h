/* printf-style formatting without a destination of its own, shared by printk and printf. */
#ifndef LIB_FORMAT_H
#define LIB_FORMAT_H

#include <stdarg.h>
#include <stddef.h>

/* Formats into `buffer` (always terminated, truncated to fit) and returns the length stored.
 * Knows %s %c %d %u %x %% with a zero or blank padded width, and a precision for %s. */
size_t format_text(char *buffer, size_t size, const char *format, va_list arguments);

#endif
