/* Time in ticks of the 8254, counted only while somebody needs it. */
#ifndef KERNEL_TIMER_H
#define KERNEL_TIMER_H

#include <stdbool.h>
#include <stdint.h>

/* Starts channel 0 at `hz` ticks a second (clamped to 19-1000). */
void timer_init(unsigned hz);

/* Lets ticks come; they stop by themselves when the scheduler no longer needs them. */
void timer_start(void);

/* The tick at which `seconds` and `microseconds` (below 1,000,000) from now will have passed. */
uint32_t timer_deadline(uint32_t seconds, uint32_t microseconds);

/* True if tick `deadline` has come. */
bool timer_passed(uint32_t deadline);

#endif
