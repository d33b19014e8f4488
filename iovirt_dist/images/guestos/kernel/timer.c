/* 8254 channel 0 in mode 2 on IRQ 0 (Intel 8254 data sheet, "Control word format").
 *
 * A tick costs a guest of a distributed machine several messages. So IRQ 0 is masked while no
 * process has a deadline and at most one can run: the handler masks it at the first tick that
 * nobody needed, which keeps mask and unmask from alternating at every disk request. The price
 * is that ticks are no clock; deadlines are relative and rounded up, so they never come early. */
#include "timer.h"

#include "pic.h"
#include "printk.h"
#include "process.h"
#include "trap.h"
#include "x86.h"

enum {
    PIT_CHANNEL_0 = 0x40,
    PIT_CONTROL = 0x43,
    PIT_CHANNEL_0_MODE_2 = 0x34, /* low byte, then high byte */
    PIT_INPUT_HZ = 1193182,
    HZ_MINIMUM = 19, /* the 16-bit counter cannot divide by more than 65536: 18.2 Hz */
    HZ_MAXIMUM = 1000,
    SECONDS_MAXIMUM = 1000000,
    TIMER_IRQ = 0,
};

static uint32_t ticks;
static uint32_t ticks_per_second;
static bool running;

static void tick(void)
{
    ticks++;
    if (!scheduler_tick()) {
        running = false;
        pic_mask(TIMER_IRQ);
    }
}

void timer_init(unsigned hz)
{
    uint32_t divisor;

    ticks_per_second = hz < HZ_MINIMUM ? HZ_MINIMUM : hz > HZ_MAXIMUM ? HZ_MAXIMUM : hz;
    if (ticks_per_second != hz)
        printk("timer: hz=%u is out of range, using %u\n", hz, ticks_per_second);
    divisor = PIT_INPUT_HZ / ticks_per_second;
    outb(PIT_CONTROL, PIT_CHANNEL_0_MODE_2);
    outb(PIT_CHANNEL_0, (uint8_t)divisor);
    outb(PIT_CHANNEL_0, (uint8_t)(divisor >> 8));
    irq_install(TIMER_IRQ, tick);
    running = true;
}

void timer_start(void)
{
    if (running)
        return;
    running = true;
    pic_unmask(TIMER_IRQ);
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
