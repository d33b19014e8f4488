/* Programs. */
#ifndef KERNEL_EXEC_H
#define KERNEL_EXEC_H

#include <stdint.h>

enum { ARGUMENTS_MAXIMUM = 64 };

/* A program's arguments, gathered in kernel memory before the old address space goes. */
struct arguments {
    uint32_t count;
    uint32_t length;                      /* bytes used of `text` */
    uint16_t offsets[ARGUMENTS_MAXIMUM];  /* of each argument in `text` */
    char text[2048];
};

/* 0 or -E2BIG. */
int arguments_add(struct arguments *arguments, const char *text);

/* Replaces the current process's program by the one built in under `name`; its user frame then
 * leads to the new program's entry. 0, -ENOENT, -ENOEXEC or -ENOMEM, the old program unharmed. */
int exec(const char *name, const struct arguments *arguments);

#endif
