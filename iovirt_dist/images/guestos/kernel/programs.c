#include "programs.h"

#include <stddef.h>

#include "string.h"

const struct program *program_find(const char *name)
{
    for (const char *slash; (slash = strchr(name, '/')) != NULL;)
        name = slash + 1;
    for (const struct program *program = programs; program->name != NULL; program++)
        if (strcmp(program->name, name) == 0)
            return program;
    return NULL;
}
