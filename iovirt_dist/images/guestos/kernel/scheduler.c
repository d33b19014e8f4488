/* Round-robin over the process table. Process 0 is the idle loop and is chosen last. */
#include "gdt.h"
#include "paging.h"
#include "process.h"
#include "process_table.h"
#include "timer.h"
#include "x86.h"

struct process *current = &processes[0];
static bool reschedule;

static unsigned count_runnable(void)
{
    unsigned count = 0;

    for (unsigned i = 1; i < PROCESSES; i++)
        count += processes[i].state == RUNNABLE;
    return count;
}

static struct process *next_process(void)
{
    unsigned start = (unsigned)(current - processes);

    for (unsigned i = 1; i <= PROCESSES; i++) {
        struct process *candidate = &processes[(start + i) % PROCESSES];
        if (candidate != &processes[0] && candidate->state == RUNNABLE)
            return candidate;
    }
    return &processes[0];
}

static void schedule(void)
{
    struct process *previous = current;
    struct process *next = next_process();

    reschedule = false;
    if (count_runnable() > 1)
        timer_start(); /* somebody will have to be preempted */
    if (next == previous)
        return;
    current = next;
    set_kernel_stack(kernel_stack_top(next));
    space_activate(next->space);
    switch_context(&previous->saved_esp, next->saved_esp);
}

static void block(const void *channel)
{
    current->waits_for = channel;
    current->timed_out = false;
    current->state = BLOCKED;
    schedule();
}

void wait_for(const void *channel)
{
    current->has_deadline = false;
    block(channel);
}

bool wait_until(const void *channel, uint32_t deadline)
{
    current->has_deadline = true;
    current->deadline = deadline;
    timer_start();
    block(channel);
    return !current->timed_out;
}

static void make_runnable(struct process *process)
{
    process->state = RUNNABLE;
    process->has_deadline = false;
    reschedule = true;
}

void wake(const void *channel)
{
    for (unsigned i = 1; i < PROCESSES; i++)
        if (processes[i].state == BLOCKED && processes[i].waits_for == channel)
            make_runnable(&processes[i]);
}

void yield(void)
{
    schedule();
}

void schedule_if_needed(void)
{
    if (reschedule)
        schedule();
}

bool scheduler_tick(void)
{
    bool deadlines = false;

    for (unsigned i = 1; i < PROCESSES; i++) {
        struct process *process = &processes[i];
        if (process->state != BLOCKED || !process->has_deadline)
            continue;
        deadlines = true;
        if (timer_passed(process->deadline)) {
            process->timed_out = true;
            make_runnable(process);
        }
    }
    reschedule = true;
    return deadlines || count_runnable() > 1;
}

_Noreturn void idle(void)
{
    for (;;) {
        schedule();
        /* Whatever woke a process between here and there did it with interrupts off. */
        sleep_until_interrupt();
    }
}
