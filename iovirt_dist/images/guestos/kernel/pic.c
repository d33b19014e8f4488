/* 8259A pair, cascaded on IRQ 2 (Intel 8259A data sheet, "Initialization command words" and
 * "Operation command words"). The mask is kept in memory, so changing it costs one port access. */
#include "pic.h"

#include "trap.h"
#include "x86.h"

enum {
    MASTER_COMMAND = 0x20,
    MASTER_DATA = 0x21,
    SLAVE_COMMAND = 0xA0,
    SLAVE_DATA = 0xA1,
    ELCR_MASTER = 0x4D0,
    ELCR_SLAVE = 0x4D1,
    CASCADE_IRQ = 2,
    ICW1_EDGE_CASCADE_ICW4 = 0x11,
    ICW4_8086 = 0x01,
    OCW2_NON_SPECIFIC_EOI = 0x20,
    OCW3_READ_ISR = 0x0B,
};

static uint16_t mask = (uint16_t)~(1u << CASCADE_IRQ);

static void write_mask(unsigned irq)
{
    if (irq < 8)
        outb(MASTER_DATA, (uint8_t)mask);
    else
        outb(SLAVE_DATA, (uint8_t)(mask >> 8));
}

void pic_init(void)
{
    outb(MASTER_COMMAND, ICW1_EDGE_CASCADE_ICW4);
    outb(SLAVE_COMMAND, ICW1_EDGE_CASCADE_ICW4);
    outb(MASTER_DATA, VECTOR_IRQ);
    outb(SLAVE_DATA, VECTOR_IRQ + 8);
    outb(MASTER_DATA, 1 << CASCADE_IRQ);
    outb(SLAVE_DATA, CASCADE_IRQ);
    outb(MASTER_DATA, ICW4_8086);
    outb(SLAVE_DATA, ICW4_8086);
    write_mask(0);
    write_mask(8);
}

void pic_unmask(unsigned irq)
{
    mask &= (uint16_t)~(1u << irq);
    write_mask(irq);
}

/* The edge/level control registers, which firmware sets up where there is any (Intel 82371AB data
 * sheet, "ELCR1" and "ELCR2"). */
void pic_sense_level(unsigned irq)
{
    uint16_t port = irq < 8 ? ELCR_MASTER : ELCR_SLAVE;

    outb(port, (uint8_t)(inb(port) | 1u << irq % 8));
}

void pic_end_of_interrupt(unsigned irq)
{
    if (irq >= 8)
        outb(SLAVE_COMMAND, OCW2_NON_SPECIFIC_EOI);
    outb(MASTER_COMMAND, OCW2_NON_SPECIFIC_EOI);
}

bool pic_is_spurious(unsigned irq)
{
    uint16_t command = irq < 8 ? MASTER_COMMAND : SLAVE_COMMAND;

    if (irq != 7 && irq != 15)
        return false;
    outb(command, OCW3_READ_ISR);
    if (inb(command) & 0x80)
        return false;
    if (irq == 15)
        outb(MASTER_COMMAND, OCW2_NON_SPECIFIC_EOI); /* the cascade's request was real */
    return true;
}
