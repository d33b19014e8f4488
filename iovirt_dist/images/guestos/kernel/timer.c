/* 8254 channel 0 in mode 2 on IRQ 0 (Intel 8254 data sheet, "Control word format").
 *
 * A tick costs a guest of a distributed machine several messages. So the counter is stopped while
 * no process has a deadline and at most one can run: the handler stops it at the first tick that
 * nobody needed, which keeps stop and start from alternating at every disk request. The price is
 * that ticks are no clock; deadlines are relative and rounded up, so they never come early. */
#include "timer.h"

#include "printk.h"
#include "process.h"
#include "trap.h"
#include "x86.h"

enum {
    PIT_CHANNEL_0 = 0x40,
    PIT_CONTROL = 0x43,
    PIT_CHANNEL_0_MODE_2 = 0x34, /* low byte, then high byte */
    /* Mode 4 counts once it has a count, which it is never given; until then OUT stays high, as
     * in mode 2, so that neither the stop nor the next start makes an edge. */
    PIT_CHANNEL_0_STOPPED = 0x38,
    PIT_INPUT_HZ = 1193182,
    HZ_MINIMUM = 19, /* the 16-bit counter cannot divide by more than 65536: 18.2 Hz */
    HZ_MAXIMUM = 1000,
    SECONDS_MAXIMUM = 1000000,
    TIMER_IRQ = 0,
};

static uint32_t ticks;
static uint32_t ticks_per_second;
static uint32_t divisor;
static bool running;

static void tick(unsigned irq)
{
    (void)irq;
    ticks++;
    if (!scheduler_tick()) {
        running = false;
        outb(PIT_CONTROL, PIT_CHANNEL_0_STOPPED);
    }
}

void timer_init(unsigned hz)
{
    ticks_per_second = hz < HZ_MINIMUM ? HZ_MINIMUM : hz > HZ_MAXIMUM ? HZ_MAXIMUM : hz;
    if (ticks_per_second != hz)
        printk("timer: hz=%u is out of range, using %u\n", hz, ticks_per_second);
    divisor = PIT_INPUT_HZ / ticks_per_second;
    irq_install(TIMER_IRQ, tick);
    timer_start();
}

void timer_start(void)
{
    if (running)
        return;
    running = true;
    outb(PIT_CONTROL, PIT_CHANNEL_0_MODE_2);
    outb(PIT_CHANNEL_0, (uint8_t)divisor);
    outb(PIT_CHANNEL_0, (uint8_t)(divisor >> 8));
}

uint32_t timer_deadline(uint32_t seconds, uint32_t microseconds)
{
    if (seconds > SECONDS_MAXIMUM)
        seconds = SECONDS_MAXIMUM;
    /* One more for the tick under way, one more to round up. */
    return ticks + seconds * ticks_per_second + microseconds * ticks_per_second / 1000000 + 2;
}

bool timer_passed(uint32_t deadline)
{
    return (int32_t)(ticks - deadline) >= 0;
}
