#include "libc.h"

#include "format.h"

void exit(int status)
{
    for (;;)
        system_call(SYS_EXIT, status);
}

int fork(void)
{
    return system_call(SYS_FORK);
}

int read(int descriptor, void *buffer, size_t length)
{
    return system_call(SYS_READ, descriptor, buffer, length);
}

int write(int descriptor, const void *buffer, size_t length)
{
    return system_call(SYS_WRITE, descriptor, buffer, length);
}

int pread(int descriptor, void *buffer, size_t length, uint64_t position)
{
    return system_call(SYS_PREAD64, descriptor, buffer, length, (uint32_t)position,
                       (uint32_t)(position >> 32));
}

int pwrite(int descriptor, const void *buffer, size_t length, uint64_t position)
{
    return system_call(SYS_PWRITE64, descriptor, buffer, length, (uint32_t)position,
                       (uint32_t)(position >> 32));
}

int open(const char *path, int flags)
{
    return system_call(SYS_OPEN, path, flags, 0);
}

int close(int descriptor)
{
    return system_call(SYS_CLOSE, descriptor);
}

int waitpid(int pid, uint32_t *status, int options)
{
    return system_call(SYS_WAITPID, pid, status, options);
}

int execve(const char *path, char *const *arguments, char *const *environment)
{
    return system_call(SYS_EXECVE, path, arguments, environment);
}

int fsync(int descriptor)
{
    return system_call(SYS_FSYNC, descriptor);
}

int block_size(int descriptor, uint64_t *bytes)
{
    return system_call(SYS_IOCTL, descriptor, BLKGETSIZE64, bytes);
}

int seek(int descriptor, uint64_t position)
{
    uint64_t result;

    return system_call(SYS_LLSEEK, descriptor, (uint32_t)(position >> 32), (uint32_t)position,
                       &result, SEEK_SET);
}

void sleep_milliseconds(unsigned milliseconds)
{
    struct timespec time = {
        .tv_sec = (int32_t)(milliseconds / 1000),
        .tv_nsec = (int32_t)(milliseconds % 1000 * 1000000),
    };

    system_call(SYS_NANOSLEEP, &time, NULL);
}

void pause(void)
{
    for (;;)
        system_call(SYS_PAUSE);
}

int power_off(void)
{
    return system_call(SYS_REBOOT, REBOOT_MAGIC1, REBOOT_MAGIC2, REBOOT_POWER_OFF, 0);
}

void *allocate(size_t length)
{
    uint32_t start = (uint32_t)system_call(SYS_BRK, 0);
    uint32_t end = start + ((length + 15) & ~(size_t)15);

    if (end < start || (uint32_t)system_call(SYS_BRK, end) != end)
        return NULL;
    return (void *)start;
}

void print(const char *format, ...)
{
    char text[256];
    va_list list;

    va_start(list, format);
    write(1, text, format_text(text, sizeof text, format, list));
    va_end(list);
}

const char *argument(char *const *arguments, const char *name)
{
    size_t length = strlen(name);

    for (; *arguments != NULL; arguments++)
        if (starts_with(*arguments, name) && (*arguments)[length] == '=')
            return *arguments + length + 1;
    return NULL;
}
