/* 16550 (National Semiconductor PC16550D data sheet, sections 8.0 to 8.6).
 *
 * The transmitter-empty interrupt stays enabled: it comes once when the FIFO runs empty, and
 * reading IIR takes it back. So a FIFO of output costs four port accesses: IIR, one `rep outsb`
 * of 16 bytes, IIR again (the 8259 sees edges, so no cause may be left behind), and the EOI. */
#include "uart.h"

#include "process.h"
#include "trap.h"
#include "tty.h"
#include "x86.h"

enum {
    UART_DATA = 0x3F8,
    UART_INTERRUPT_ENABLE = 0x3F9,
    UART_INTERRUPT_ID = 0x3FA,
    UART_FIFO_CONTROL = 0x3FA,
    UART_LINE_CONTROL = 0x3FB,
    UART_MODEM_CONTROL = 0x3FC,
    UART_LINE_STATUS = 0x3FD,
    UART_MODEM_STATUS = 0x3FE,
    UART_IRQ = 4,
    FIFO_SIZE = 16,
};

enum {
    ENABLE_RECEIVED = 0x01,
    ENABLE_EMPTY = 0x02,
    FIFO_ENABLE_AND_CLEAR = 0x07, /* receive trigger at one byte: a typist wants the echo */
    LINE_8N1 = 0x03,
    LINE_DIVISOR_ACCESS = 0x80,
    MODEM_DTR_RTS_OUT2 = 0x0B, /* OUT2 connects the interrupt on a PC */
    DIVISOR_115200 = 1,
    STATUS_EMPTY = 0x20,
};

/* IIR, bits 3 to 0 (table II and section 8.6). */
enum {
    ID_MODEM = 0x0,
    ID_NONE = 0x1,
    ID_EMPTY = 0x2,
    ID_RECEIVED = 0x4,
    ID_LINE = 0x6,
    ID_TIMEOUT = 0xC,
    ID_MASK = 0xF,
};

enum { RING_SIZE = 2048 }; /* a power of two */

static char ring[RING_SIZE];
static uint32_t put_count, sent_count;
static bool idle_transmitter = true;

bool uart_put(char byte)
{
    if (put_count - sent_count == RING_SIZE)
        return false;
    ring[put_count++ % RING_SIZE] = byte;
    return true;
}

/* Fills the FIFO, which is empty. */
static void send_burst(void)
{
    char burst[FIFO_SIZE];
    uint32_t length = 0;

    while (length < FIFO_SIZE && sent_count != put_count)
        burst[length++] = ring[sent_count++ % RING_SIZE];
    idle_transmitter = length == 0;
    if (length > 0)
        rep_outsb(UART_DATA, burst, length);
}

void uart_start(void)
{
    if (idle_transmitter)
        send_burst();
}

void uart_wait_for_room(void)
{
    wait_for(ring);
}

static void send_polled(void)
{
    while (!(inb(UART_LINE_STATUS) & STATUS_EMPTY))
        ;
    send_burst();
}

void uart_make_room(void)
{
    while (put_count - sent_count == RING_SIZE)
        send_polled();
}

void uart_drain(void)
{
    while (put_count != sent_count)
        send_polled();
}

static void transmitter_empty(void)
{
    send_burst();
    /* Half empty: a writer of much then runs once for many bursts. */
    if (put_count - sent_count <= RING_SIZE / 2)
        wake(ring);
}

static void uart_interrupt(unsigned irq)
{
    (void)irq;
    for (;;) {
        switch (inb(UART_INTERRUPT_ID) & ID_MASK) {
        case ID_RECEIVED:
        case ID_TIMEOUT:
            tty_received((char)inb(UART_DATA));
            break;
        case ID_EMPTY:
            transmitter_empty();
            break;
        case ID_LINE:
            inb(UART_LINE_STATUS);
            break;
        case ID_MODEM:
            inb(UART_MODEM_STATUS);
            break;
        default:
            return;
        }
    }
}

void uart_init(void)
{
    outb(UART_INTERRUPT_ENABLE, 0);
    outb(UART_LINE_CONTROL, LINE_8N1 | LINE_DIVISOR_ACCESS);
    outb(UART_DATA, DIVISOR_115200);
    outb(UART_INTERRUPT_ENABLE, 0); /* high byte of the divisor */
    outb(UART_LINE_CONTROL, LINE_8N1);
    outb(UART_FIFO_CONTROL, FIFO_ENABLE_AND_CLEAR);
    outb(UART_MODEM_CONTROL, MODEM_DTR_RTS_OUT2);
    irq_install(UART_IRQ, uart_interrupt);
    outb(UART_INTERRUPT_ENABLE, ENABLE_RECEIVED | ENABLE_EMPTY);
}
