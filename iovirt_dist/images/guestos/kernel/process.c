/* Life of a process: fork, exit, wait. */
#include "process.h"

#include "abi.h"
#include "file.h"
#include "memory.h"
#include "paging.h"
#include "printk.h"
#include "process_table.h"
#include "string.h"
#include "usercopy.h"

enum { STACK_PAGES = 2, INIT_PID = 1 };

struct kernel_stack {
    uint8_t guard[PAGE_SIZE];
    uint8_t pages[STACK_PAGES * PAGE_SIZE];
};

/* What switch_context pops when a process runs for the first time. */
struct first_context {
    uint32_t edi, esi, ebx, ebp;
    uint32_t eip;
};

struct process processes[PROCESSES];
static struct kernel_stack kernel_stacks[PROCESSES] __attribute__((aligned(PAGE_SIZE)));
static int last_pid;

uint32_t kernel_stack_top(const struct process *process)
{
    return (uint32_t)(&kernel_stacks[process - processes] + 1);
}

static struct trap_frame *frame_of(const struct process *process)
{
    return (struct trap_frame *)kernel_stack_top(process) - 1;
}

struct trap_frame *user_frame(void)
{
    return frame_of(current);
}

/* Lets `process` begin at `entry` with its user frame on top of the stack. */
static void set_first_context(struct process *process, void (*entry)(void))
{
    struct first_context *context = (struct first_context *)frame_of(process) - 1;

    *context = (struct first_context){.eip = (uint32_t)entry};
    process->saved_esp = (uint32_t)context;
}

static struct process *allocate(void)
{
    for (unsigned i = 1; i < PROCESSES; i++) {
        if (processes[i].state != UNUSED)
            continue;
        memset(&processes[i], 0, sizeof processes[i]);
        processes[i].pid = ++last_pid;
        return &processes[i];
    }
    return NULL;
}

void process_init(void)
{
    for (unsigned i = 0; i < PROCESSES; i++)
        paging_unmap_kernel_page(kernel_stacks[i].guard);
    processes[0].state = RUNNABLE;
    copy_string(processes[0].name, "idle", NAME_LENGTH);
}

void process_start_init(void (*entry)(void))
{
    struct process *init = allocate();

    copy_string(init->name, "init", NAME_LENGTH);
    set_first_context(init, entry);
    init->state = RUNNABLE;
}

int process_fork(void)
{
    struct process *child = allocate();

    if (child == NULL)
        return -EAGAIN;
    child->space = space_copy(current->space);
    if (child->space == NULL)
        return -ENOMEM;
    copy_string(child->name, current->name, NAME_LENGTH);
    child->parent = current;
    child->heap_start = current->heap_start;
    child->heap_end = current->heap_end;
    files_share(child->files, current->files);
    *frame_of(child) = *user_frame();
    frame_of(child)->eax = 0;
    set_first_context(child, trap_return);
    child->state = RUNNABLE;
    return child->pid;
}

static void give_children_to_init(void)
{
    for (unsigned i = 1; i < PROCESSES; i++)
        if (processes[i].state != UNUSED && processes[i].parent == current)
            processes[i].parent = &processes[INIT_PID];
    wake(&processes[INIT_PID]);
}

void process_exit(uint32_t wait_status)
{
    uint32_t *space = current->space;

    if (current->pid == INIT_PID)
        panic("init ended with status %x", wait_status);
    files_close(current->files); /* may block: the space must still be there */
    give_children_to_init();
    current->space = NULL;
    space_activate(NULL);
    space_destroy(space);
    current->wait_status = wait_status;
    current->state = ZOMBIE;
    wake(current->parent);
    yield();
    panic("a dead process ran");
}

/* A dead child that matches, or NULL; `any` tells if there is a living one. */
static struct process *find_child(int pid, bool *any)
{
    *any = false;
    for (unsigned i = 1; i < PROCESSES; i++) {
        struct process *child = &processes[i];
        if (child->state == UNUSED || child->parent != current)
            continue;
        if (pid != -1 && pid != child->pid)
            continue;
        if (child->state == ZOMBIE)
            return child;
        *any = true;
    }
    return NULL;
}

int process_wait(int pid, uint32_t status_address, uint32_t options)
{
    struct process *child;
    bool any;

    if (options & ~(uint32_t)WNOHANG)
        return -EINVAL;
    if (status_address != 0 && !user_range_ok(status_address, sizeof child->wait_status, true))
        return -EFAULT;
    while ((child = find_child(pid, &any)) == NULL) {
        if (!any)
            return -ECHILD;
        if (options & WNOHANG)
            return 0;
        wait_for(current); /* a process waits for its children on its own address */
    }
    if (status_address != 0)
        copy_to_user(status_address, &child->wait_status, sizeof child->wait_status);
    child->state = UNUSED;
    return child->pid;
}
