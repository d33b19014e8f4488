#include "window.h"

#include <stddef.h>

enum { DIGITS_MAXIMUM = 16 };

static unsigned digit_of(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    if (c >= 'a' && c <= 'f')
        return (unsigned)(c - 'a') + 10;
    if (c >= 'A' && c <= 'F')
        return (unsigned)(c - 'A') + 10;
    return DIGITS_MAXIMUM;
}

/* A number, hexadecimal after 0x, else decimal. Returns what follows it, NULL if there is none or
 * it takes more than 32 bits. */
static const char *parse_number(const char *text, uint32_t *number)
{
    unsigned base = 10;
    const char *start;
    uint64_t value = 0;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        base = 16;
        text += 2;
    }
    start = text;
    for (unsigned digit; (digit = digit_of(*text)) < base; text++) {
        value = value * base + digit;
        if (value > UINT32_MAX)
            return NULL;
    }
    *number = (uint32_t)value;
    return text != start ? text : NULL;
}

/* The suffixes of Linux's memparse() that fit. */
static unsigned shift_of(char suffix)
{
    switch (suffix) {
    case 'K':
    case 'k':
        return 10;
    case 'M':
    case 'm':
        return 20;
    }
    return 0;
}

static const char *parse_size(const char *text, uint32_t *size)
{
    const char *end = parse_number(text, size);
    unsigned shift = end != NULL ? shift_of(*end) : 0;

    if (*size > UINT32_MAX >> shift)
        return NULL;
    *size <<= shift;
    return shift != 0 ? end + 1 : end;
}

bool parse_window(const char *text, struct window *window)
{
    *window = (struct window){0};
    text = parse_size(text, &window->size);
    if (text == NULL || *text != '@')
        return false;
    text = parse_number(text + 1, &window->base);
    if (text == NULL || *text != ':')
        return false;
    text = parse_number(text + 1, &window->irq);
    if (text == NULL || (*text != '\0' && *text != ':'))
        return false;
    return window->size > 0 && window->base <= UINT32_MAX - (window->size - 1);
}
