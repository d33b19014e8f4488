/* The programs that are built into the kernel image. */
#ifndef KERNEL_PROGRAMS_H
#define KERNEL_PROGRAMS_H

#include <stdint.h>

struct program {
    const char *name;
    const uint8_t *start, *end; /* an ELF file */
};

/* NULL: there is none of that name. A leading path such as /bin/ is ignored. */
const struct program *program_find(const char *name);

/* programs.S; ends with a NULL name. */
extern const struct program programs[];

#endif
