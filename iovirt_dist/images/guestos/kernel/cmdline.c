#include "cmdline.h"

#include <stddef.h>

#include "string.h"

enum { CMDLINE_SIZE = 1024, OPTIONS_MAXIMUM = 32 };

static char cmdline[CMDLINE_SIZE];
static char *options[OPTIONS_MAXIMUM];
static unsigned options_count;

/* Words without '=' are dropped: the first of a multiboot command line is the kernel's path
 * (Multiboot 0.6.96, section 3.3, `cmdline`). */
void cmdline_init(const char *text)
{
    copy_string(cmdline, text, sizeof cmdline);
    for (char *word = cmdline; word != NULL && options_count < OPTIONS_MAXIMUM;) {
        char *end = strchr(word, ' ');
        if (end != NULL)
            *end++ = '\0';
        if (strchr(word, '=') != NULL)
            options[options_count++] = word;
        word = end;
    }
}

const char *option_at(const char *name, unsigned index)
{
    size_t length = strlen(name);

    for (unsigned i = 0; i < options_count; i++)
        if (starts_with(options[i], name) && options[i][length] == '=' && index-- == 0)
            return options[i] + length + 1;
    return NULL;
}

const char *option(const char *name)
{
    return option_at(name, 0);
}

const char *option_or(const char *name, const char *fallback)
{
    const char *value = option(name);

    return value != NULL ? value : fallback;
}

void options_add(struct arguments *arguments)
{
    for (unsigned i = 0; i < options_count; i++)
        arguments_add(arguments, options[i]);
}
