/* A disassembler for the privileged instructions, for messages. */
#ifndef KERNEL_DECODE_H
#define KERNEL_DECODE_H

#include <stddef.h>

#include "trap.h"

/* Writes the instruction at the frame's EIP as text: "out dx, al port 0x1f7", or its first bytes. */
void decode_instruction(const struct trap_frame *frame, char *text, size_t size);

/* Formats into `text` as printk does. */
void print_to(char *text, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
