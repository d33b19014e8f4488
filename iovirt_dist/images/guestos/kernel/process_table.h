/* The process table, for the two files that implement process.h. */
#ifndef KERNEL_PROCESS_TABLE_H
#define KERNEL_PROCESS_TABLE_H

#include "process.h"

extern struct process processes[PROCESSES];

uint32_t kernel_stack_top(const struct process *process);

#endif
