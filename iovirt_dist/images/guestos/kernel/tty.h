/* The terminal: output with CR before NL, input with echo and editing, a line at a time. */
#ifndef KERNEL_TTY_H
#define KERNEL_TTY_H

#include <stddef.h>

/* Prints without blocking: polls the UART if its ring is full. For kernel messages. */
void tty_put_now(const char *text, size_t length);

/* A byte came in. Called by the UART's interrupt handler. */
void tty_received(char byte);

#endif
