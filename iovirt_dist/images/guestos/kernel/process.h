/* Processes and their scheduling. */
#ifndef KERNEL_PROCESS_H
#define KERNEL_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trap.h"

enum { PROCESSES = 16, FILES_PER_PROCESS = 8, NAME_LENGTH = 16 };

enum process_state { UNUSED, RUNNABLE, BLOCKED, ZOMBIE };

struct file;

struct process {
    enum process_state state;
    int pid;
    struct process *parent;
    char name[NAME_LENGTH];
    uint32_t *space;          /* page directory; NULL: kernel only */
    uint32_t heap_start, heap_end;
    struct file *files[FILES_PER_PROCESS];
    const void *waits_for;    /* while BLOCKED */
    bool has_deadline;
    bool timed_out;
    uint32_t deadline;        /* in ticks, if has_deadline */
    uint32_t wait_status;     /* as waitpid reports it, while ZOMBIE */
    uint32_t saved_esp;       /* while not running */
};

extern struct process *current;

/* Makes the caller the idle process, and guards every kernel stack with an unmapped page. */
void process_init(void);

/* Starts a kernel thread as process 1, the ancestor of all. */
void process_start_init(void (*entry)(void));

/* The frame with which the current process returns to ring 3. */
struct trap_frame *user_frame(void);

/* System calls of the current process. Results as system calls have them. */
int process_fork(void);
int process_wait(int pid, uint32_t status_address, uint32_t options);
_Noreturn void process_exit(uint32_t wait_status);

/* Blocks the current process until wake(`channel`). */
void wait_for(const void *channel);

/* The same, but false if tick `deadline` comes first. */
bool wait_until(const void *channel, uint32_t deadline);
void wake(const void *channel);

/* Lets other processes run. */
void yield(void);

/* The same on the way to ring 3, if a tick passed or a process woke up. */
void schedule_if_needed(void);

/* One tick of time. False if nobody needs the next one. */
bool scheduler_tick(void);

/* What the idle process does. */
_Noreturn void idle(void);

/* entry.S */
void switch_context(uint32_t *save_esp, uint32_t load_esp);

#endif
