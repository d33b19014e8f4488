/* Kernel messages, and the end. */
#ifndef KERNEL_PRINTK_H
#define KERNEL_PRINTK_H

#include "trap.h"

/* Formats as lib/format.h says, one message of at most 255 characters. Never blocks. */
void printk(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints `kernel panic: ...`, waits until the console has sent it, and halts for ever. */
_Noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the registers of `frame`. */
void print_registers(const struct trap_frame *frame);

#endif
