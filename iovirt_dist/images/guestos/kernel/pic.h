/* The two 8259A interrupt controllers. */
#ifndef KERNEL_PIC_H
#define KERNEL_PIC_H

#include <stdbool.h>

/* Vectors 0x20 to 0x2F, everything masked but the cascade. */
void pic_init(void);

void pic_unmask(unsigned irq);

/* Makes an input sense levels instead of edges. Not for IRQ 0, 1, 2, 8 and 13. */
void pic_sense_level(unsigned irq);
void pic_end_of_interrupt(unsigned irq);

/* True if IRQ 7 or 15 was raised by a request that had gone again; no EOI is due from the caller. */
bool pic_is_spurious(unsigned irq);

#endif
