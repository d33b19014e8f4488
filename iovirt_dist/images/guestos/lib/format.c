#include "format.h"

#include <stdbool.h>
#include <stdint.h>

struct output {
    char *buffer;
    size_t size;
    size_t length;
};

struct field {
    char pad;
    unsigned width;
    unsigned precision;
};

static void put(struct output *out, char c)
{
    if (out->length + 1 < out->size)
        out->buffer[out->length++] = c;
}

static void put_field(struct output *out, const struct field *field, const char *text,
                      unsigned length)
{
    for (unsigned i = length; i < field->width; i++)
        put(out, field->pad);
    for (unsigned i = 0; i < length; i++)
        put(out, text[i]);
}

static void put_string(struct output *out, const struct field *field, const char *text)
{
    unsigned length = 0;

    while (length < field->precision && text[length] != '\0')
        length++;
    put_field(out, field, text, length);
}

static void put_number(struct output *out, const struct field *field, uint32_t value,
                       unsigned base, bool negative)
{
    char digits[12];
    unsigned at = sizeof digits;

    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    if (negative)
        digits[--at] = '-';
    put_field(out, field, digits + at, sizeof digits - at);
}

static unsigned parse_digits(const char **format)
{
    unsigned value = 0;

    for (; **format >= '0' && **format <= '9'; (*format)++)
        value = value * 10 + (unsigned)(**format - '0');
    return value;
}

static const char *parse_field(const char *format, struct field *field)
{
    *field = (struct field){.pad = ' ', .precision = UINT32_MAX};
    if (*format == '0')
        field->pad = *format++;
    field->width = parse_digits(&format);
    if (*format == '.') {
        format++;
        field->precision = parse_digits(&format);
    }
    return format;
}

size_t format_text(char *buffer, size_t size, const char *format, va_list arguments)
{
    struct output out = {buffer, size, 0};

    for (; *format != '\0'; format++) {
        struct field field;
        int number;

        if (*format != '%') {
            put(&out, *format);
            continue;
        }
        format = parse_field(format + 1, &field);
        switch (*format) {
        case 's':
            put_string(&out, &field, va_arg(arguments, const char *));
            break;
        case 'd':
            number = va_arg(arguments, int);
            put_number(&out, &field, number < 0 ? -(uint32_t)number : (uint32_t)number, 10,
                       number < 0);
            break;
        case 'u':
            put_number(&out, &field, va_arg(arguments, uint32_t), 10, false);
            break;
        case 'x':
            put_number(&out, &field, va_arg(arguments, uint32_t), 16, false);
            break;
        case 'c':
            put(&out, (char)va_arg(arguments, int));
            break;
        case '\0':
            format--; /* a lone '%' at the end: let the loop see the terminator */
            break;
        default:
            put(&out, *format);
        }
    }
    buffer[out.length] = '\0';
    return out.length;
}
