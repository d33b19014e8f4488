/* System calls: int 0x80, number in EAX, arguments in EBX, ECX, EDX, ESI, EDI, result or negative
 * error in EAX, as Linux has it on i386. */
#include "abi.h"
#include "block.h"
#include "exec.h"
#include "file.h"
#include "memory.h"
#include "paging.h"
#include "printk.h"
#include "process.h"
#include "timer.h"
#include "trap.h"
#include "uart.h"
#include "usercopy.h"
#include "x86.h"

enum { PATH_LENGTH = 64, NANOSECONDS = 1000000000, RESULT_MAXIMUM = 0x7FFFF000 };

/* The registers in the order of the arguments. */
struct call {
    uint32_t a, b, c, d, e;
};

typedef int call_handler(const struct call *call);

static int sys_exit(const struct call *call)
{
    process_exit((call->a & 0xFF) << 8);
}

static int sys_fork(const struct call *call)
{
    (void)call;
    return process_fork();
}

/* At `position`; NULL: at the file's own. */
static int read_at(const struct call *call, uint64_t *position)
{
    struct file *file = file_get(call->a);

    if (file == NULL || file->access == O_WRONLY)
        return -EBADF;
    if (position != NULL && file->operations->seek == NULL)
        return -ESPIPE;
    if (call->c > RESULT_MAXIMUM)
        return -EINVAL;
    if (!user_range_ok(call->b, call->c, true))
        return -EFAULT;
    if (call->c == 0)
        return 0;
    return file->operations->read(position != NULL ? position : &file->position, (void *)call->b,
                                  call->c);
}

static int write_at(const struct call *call, uint64_t *position)
{
    struct file *file = file_get(call->a);

    if (file == NULL || file->access == O_RDONLY)
        return -EBADF;
    if (position != NULL && file->operations->seek == NULL)
        return -ESPIPE;
    if (call->c > RESULT_MAXIMUM)
        return -EINVAL;
    if (!user_range_ok(call->b, call->c, false))
        return -EFAULT;
    if (call->c == 0)
        return 0;
    return file->operations->write(position != NULL ? position : &file->position,
                                   (const void *)call->b, call->c);
}

static int sys_read(const struct call *call)
{
    return read_at(call, NULL);
}

static int sys_write(const struct call *call)
{
    return write_at(call, NULL);
}

/* The position in two halves, the low one first. */
static int sys_pread64(const struct call *call)
{
    uint64_t position = (uint64_t)call->e << 32 | call->d;

    return call->e > INT32_MAX ? -EINVAL : read_at(call, &position);
}

static int sys_pwrite64(const struct call *call)
{
    uint64_t position = (uint64_t)call->e << 32 | call->d;

    return call->e > INT32_MAX ? -EINVAL : write_at(call, &position);
}

static int sys_open(const struct call *call)
{
    char path[PATH_LENGTH];
    int length = copy_string_from_user(path, call->a, sizeof path);

    if (length < 0)
        return length == -E2BIG ? -ENOENT : length;
    return file_open(path, call->b);
}

static int sys_close(const struct call *call)
{
    return file_close(call->a);
}

static int sys_waitpid(const struct call *call)
{
    return process_wait((int)call->a, call->b, call->c);
}

/* The environment (third argument) is ignored: nothing here has a use for it. */
static int sys_execve(const struct call *call)
{
    struct arguments arguments = {0};
    char path[PATH_LENGTH];
    char text[256];
    uint32_t address;
    int error = copy_string_from_user(path, call->a, sizeof path);

    if (error < 0)
        return error == -E2BIG ? -ENOENT : error;
    for (uint32_t argv = call->b;; argv += sizeof address) {
        error = copy_from_user(&address, argv, sizeof address);
        if (error != 0)
            return error;
        if (address == 0)
            break;
        error = copy_string_from_user(text, address, sizeof text);
        if (error < 0)
            return error;
        error = arguments_add(&arguments, text);
        if (error != 0)
            return error;
    }
    return exec(path, &arguments);
}

static int seek(struct file *file, int64_t offset, uint32_t whence)
{
    if (file == NULL)
        return -EBADF;
    if (file->operations->seek == NULL)
        return -ESPIPE;
    return file->operations->seek(file, offset, whence);
}

static int sys_lseek(const struct call *call)
{
    struct file *file = file_get(call->a);
    int error = seek(file, (int32_t)call->b, call->c);

    if (error != 0)
        return error;
    return file->position > INT32_MAX ? -EOVERFLOW : (int)file->position;
}

/* The offset in two halves, the new position through a pointer. */
static int sys_llseek(const struct call *call)
{
    struct file *file = file_get(call->a);
    int error;

    if (!user_range_ok(call->d, sizeof file->position, true))
        return -EFAULT;
    error = seek(file, (int64_t)(((uint64_t)call->b << 32) | call->c), call->e);
    if (error != 0)
        return error;
    return copy_to_user(call->d, &file->position, sizeof file->position);
}

static int sys_getpid(const struct call *call)
{
    (void)call;
    return current->pid;
}

/* Returns the new end of the heap, or the old one if it cannot be moved (Linux brk(2), notes). */
static int sys_brk(const struct call *call)
{
    uint32_t old = current->heap_end;

    if (call->a < current->heap_start)
        return (int)old;
    if (call->a > old && !space_map(current->space, page_up(old), call->a, true)) {
        space_unmap(current->space, old, call->a);
        return (int)old;
    }
    if (call->a < old)
        space_unmap(current->space, call->a, old);
    current->heap_end = call->a;
    return (int)call->a;
}

static int sys_ioctl(const struct call *call)
{
    struct file *file = file_get(call->a);

    if (file == NULL)
        return -EBADF;
    if (file->operations->control == NULL)
        return -ENOTTY;
    return file->operations->control(file, call->b, call->c);
}

static int sys_fsync(const struct call *call)
{
    struct file *file = file_get(call->a);

    if (file == NULL)
        return -EBADF;
    return file->operations->sync != NULL ? file->operations->sync() : -EINVAL;
}

/* Halting and powering off are the same here: there is no power management to ask. */
static int sys_reboot(const struct call *call)
{
    if (call->a != REBOOT_MAGIC1 || call->b != REBOOT_MAGIC2)
        return -EINVAL;
    if (call->c != REBOOT_HALT && call->c != REBOOT_POWER_OFF)
        return -EINVAL;
    block_sync();
    printk("kernel: halted\n");
    uart_drain();
    halt_for_ever();
}

static int sys_sched_yield(const struct call *call)
{
    (void)call;
    yield();
    return 0;
}

/* Nothing interrupts a sleep, so the second argument (time left) is never written. */
static int sys_nanosleep(const struct call *call)
{
    struct timespec time;
    int error = copy_from_user(&time, call->a, sizeof time);

    if (error != 0)
        return error;
    if (time.tv_sec < 0 || time.tv_nsec < 0 || time.tv_nsec >= NANOSECONDS)
        return -EINVAL;
    wait_until(&current->deadline,
               timer_deadline((uint32_t)time.tv_sec, (uint32_t)time.tv_nsec / 1000));
    return 0;
}

/* Waits for a signal (Linux pause(2)), and none will come. */
static int sys_pause(const struct call *call)
{
    (void)call;
    wait_for(&current->pid);
    return -EINTR;
}

static call_handler *const handlers[] = {
    [SYS_EXIT] = sys_exit,
    [SYS_FORK] = sys_fork,
    [SYS_READ] = sys_read,
    [SYS_WRITE] = sys_write,
    [SYS_OPEN] = sys_open,
    [SYS_CLOSE] = sys_close,
    [SYS_WAITPID] = sys_waitpid,
    [SYS_EXECVE] = sys_execve,
    [SYS_LSEEK] = sys_lseek,
    [SYS_GETPID] = sys_getpid,
    [SYS_PAUSE] = sys_pause,
    [SYS_BRK] = sys_brk,
    [SYS_IOCTL] = sys_ioctl,
    [SYS_REBOOT] = sys_reboot,
    [SYS_FSYNC] = sys_fsync,
    [SYS_LLSEEK] = sys_llseek,
    [SYS_SCHED_YIELD] = sys_sched_yield,
    [SYS_NANOSLEEP] = sys_nanosleep,
    [SYS_PREAD64] = sys_pread64,
    [SYS_PWRITE64] = sys_pwrite64,
    [SYS_EXIT_GROUP] = sys_exit,
};

void system_call(struct trap_frame *frame)
{
    uint32_t number = frame->eax;
    struct call call = {frame->ebx, frame->ecx, frame->edx, frame->esi, frame->edi};
    int result = -ENOSYS;

    if (number < sizeof handlers / sizeof *handlers && handlers[number] != NULL)
        result = handlers[number](&call);
    /* A successful execve has built the new program's frame, with a zero there. */
    frame->eax = (uint32_t)result;
}
