/* 16550 at COM1, interrupt driven, with a transmit ring. Bytes received go to tty_received(). */
#ifndef KERNEL_UART_H
#define KERNEL_UART_H

#include <stdbool.h>
#include <stdint.h>

void uart_init(void);

/* Puts a byte into the ring; false if it is full. Bytes leave at the next uart_start(). */
bool uart_put(char byte);

/* Sends what lies in the ring if the transmitter is idle. */
void uart_start(void);

/* Blocks the current process until the ring has room again. */
void uart_wait_for_room(void);

/* Sends by polling, without interrupts: until the ring has room, or until all is sent. */
void uart_make_room(void);
void uart_drain(void);

#endif
