/* The programs' C library: system calls, which return a negative error number where POSIX would
 * set errno, and a little more. */
#ifndef LIBC_LIBC_H
#define LIBC_LIBC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "string.h"

int system_call(int number, ...);

_Noreturn void exit(int status);
int fork(void);
int read(int descriptor, void *buffer, size_t length);
int write(int descriptor, const void *buffer, size_t length);
/* At `position`; the file's own stays. */
int pread(int descriptor, void *buffer, size_t length, uint64_t position);
int pwrite(int descriptor, const void *buffer, size_t length, uint64_t position);
int open(const char *path, int flags);
int close(int descriptor);
int waitpid(int pid, uint32_t *status, int options);
int execve(const char *path, char *const *arguments, char *const *environment);
int fsync(int descriptor);
int block_size(int descriptor, uint64_t *bytes);
int seek(int descriptor, uint64_t position);
void sleep_milliseconds(unsigned milliseconds);

/* Sleeps for ever. */
_Noreturn void pause(void);
int power_off(void);

/* Moves the end of the heap; the memory is zeroed and stays till the program ends. NULL: none. */
void *allocate(size_t length);

/* Formats as lib/format.h says, at most 255 characters, and writes them in one call. */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The value of the argument `name=value`, NULL if there is none. */
const char *argument(char *const *arguments, const char *name);

/* Linux wait status. */
static inline bool was_signalled(uint32_t status)
{
    return (status & 0x7F) != 0;
}

static inline unsigned signal_of(uint32_t status)
{
    return status & 0x7F;
}

static inline unsigned exit_status_of(uint32_t status)
{
    return (status >> 8) & 0xFF;
}

int main(int count, char **arguments);

#endif
