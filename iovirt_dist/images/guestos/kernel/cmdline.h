/* The kernel command line: words `name=value`, handed to every program as well. */
#ifndef KERNEL_CMDLINE_H
#define KERNEL_CMDLINE_H

#include "exec.h"

/* Keeps the options among the words of `text`; the loader's copy may then be overwritten. */
void cmdline_init(const char *text);

/* The value of option `name`, NULL (or `fallback`) if it was not given. */
const char *option(const char *name);
const char *option_or(const char *name, const char *fallback);

/* Adds every option, as it was written. */
void options_add(struct arguments *arguments);

#endif
