/* The kernel command line: words `name=value`, handed to every program as well. */
#ifndef KERNEL_CMDLINE_H
#define KERNEL_CMDLINE_H

#include "exec.h"

/* Keeps the options among the words of `text`; the loader's copy may then be overwritten. */
void cmdline_init(const char *text);

/* The value of option `name`, NULL (or `fallback`) if it was not given. */
const char *option_or(const char *name, const char *fallback);
const char *option(const char *name);

/* Of an option that was given several times, occurrence `index` (from 0); else NULL. */
const char *option_at(const char *name, unsigned index);

/* Adds every option, as it was written. */
void options_add(struct arguments *arguments);

#endif
