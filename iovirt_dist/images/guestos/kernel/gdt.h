/* Segments and task state. Flat segments: protection between processes is paging's work. */
#ifndef KERNEL_GDT_H
#define KERNEL_GDT_H

#include <stdint.h>

enum {
    KERNEL_CODE = 0x08,
    KERNEL_DATA = 0x10,
    USER_CODE = 0x18 | 3,
    USER_DATA = 0x20 | 3,
    TASK_STATE = 0x28,
    DOUBLE_FAULT_TASK = 0x30,
};

void gdt_init(void);

/* Sets the stack that the CPU changes to when ring 3 is interrupted. */
void set_kernel_stack(uint32_t top);

/* Tells the double fault task which page directory to run on. */
void set_double_fault_directory(uint32_t physical);

#endif
