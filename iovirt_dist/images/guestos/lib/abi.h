/* What the kernel and its programs agree on: the Linux i386 system call numbers, error numbers,
 * wait status and ioctl codes of the calls that this system has (Linux arch/x86/entry/syscalls/
 * syscall_32.tbl, include/uapi/asm-generic/errno-base.h). */
#ifndef LIB_ABI_H
#define LIB_ABI_H

#include <stdint.h>

enum {
    SYS_EXIT = 1,
    SYS_FORK = 2,
    SYS_READ = 3,
    SYS_WRITE = 4,
    SYS_OPEN = 5,
    SYS_CLOSE = 6,
    SYS_WAITPID = 7,
    SYS_EXECVE = 11,
    SYS_LSEEK = 19,
    SYS_GETPID = 20,
    SYS_PAUSE = 29,
    SYS_BRK = 45,
    SYS_IOCTL = 54,
    SYS_REBOOT = 88,
    SYS_FSYNC = 118,
    SYS_LLSEEK = 140,
    SYS_SCHED_YIELD = 158,
    SYS_NANOSLEEP = 162,
    SYS_PREAD64 = 180,
    SYS_PWRITE64 = 181,
    SYS_EXIT_GROUP = 252,
};

enum {
    EPERM = 1,
    ENOENT = 2,
    EINTR = 4,
    EIO = 5,
    ENXIO = 6,
    E2BIG = 7,
    ENOEXEC = 8,
    EBADF = 9,
    ECHILD = 10,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EFAULT = 14,
    EINVAL = 22,
    EMFILE = 24,
    ENOTTY = 25,
    ENOSPC = 28,
    ESPIPE = 29,
    ENOSYS = 38,
    EOVERFLOW = 75,
};

enum { SIGILL = 4, SIGTRAP = 5, SIGBUS = 7, SIGFPE = 8, SIGSEGV = 11 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_ACCMODE = 3 };
enum { SEEK_SET = 0, SEEK_CUR = 1, SEEK_END = 2 };
enum { WNOHANG = 1 };

/* _IOR(0x12, 114, size_t): size_t has four bytes on i386, the value stored has eight. */
#define BLKGETSIZE64 0x80041272u

#define REBOOT_MAGIC1 0xfee1deadu
#define REBOOT_MAGIC2 672274793u
#define REBOOT_HALT 0xcdef0123u
#define REBOOT_POWER_OFF 0x4321fedcu

struct timespec {
    int32_t tv_sec;
    int32_t tv_nsec;
};

#endif
