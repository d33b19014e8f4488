/* Open files: what a file descriptor means. All files are devices. */
#ifndef KERNEL_FILE_H
#define KERNEL_FILE_H

#include <stdint.h>

#include "process.h"

struct file;

/* A device's part of the system calls; a NULL entry gives the error in its comment. Buffers are
 * the caller's memory, checked already; devices that can seek move `position` on. */
struct file_operations {
    const char *path;
    int (*open)(void);                                                   /* 0 */
    int (*read)(uint64_t *position, void *buffer, uint32_t length);
    int (*write)(uint64_t *position, const void *buffer, uint32_t length);
    int (*seek)(struct file *file, int64_t offset, uint32_t whence);     /* -ESPIPE */
    int (*control)(struct file *file, uint32_t request, uint32_t argument); /* -ENOTTY */
    int (*sync)(void);                                                   /* -EINVAL */
};

struct file {
    const struct file_operations *operations;
    uint32_t users;     /* descriptors, over all processes; 0: free */
    uint32_t access;    /* O_RDONLY, O_WRONLY or O_RDWR */
    uint64_t position;
};

/* A new descriptor of the current process for the device at `path`, or a negative error. */
int file_open(const char *path, uint32_t flags);
int file_close(uint32_t descriptor);

/* The current process's open file, NULL if there is none. */
struct file *file_get(uint32_t descriptor);

void files_share(struct file **to, struct file *const *from);
void files_close(struct file **files);

/* The devices. */
extern const struct file_operations block_file, console_file, entropy_file, null_file, zero_file;

/* Looks for the device behind /dev/hwrng. */
void entropy_init(void);

#endif
