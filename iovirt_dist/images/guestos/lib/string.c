/* Memory and string functions. The block moves use the string instructions: on an emulated CPU
 * one `rep movsl` is far cheaper than a loop of loads and stores. */
#include "string.h"

#include <stdint.h>

void *memcpy(void *to, const void *from, size_t length)
{
    void *target = to;
    size_t words = length / 4;
    size_t rest = length % 4;

    __asm__ volatile("rep movsl\n\tmov %3, %2\n\trep movsb"
                     : "+D"(target), "+S"(from), "+c"(words)
                     : "r"(rest)
                     : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t length)
{
    uint8_t *target = to;
    const uint8_t *source = from;

    if ((uintptr_t)to - (uintptr_t)from >= length)
        return memcpy(to, from, length);
    while (length-- > 0)
        target[length] = source[length];
    return to;
}

void *memset(void *to, int byte, size_t length)
{
    void *target = to;
    size_t words = length / 4;
    size_t rest = length % 4;
    uint32_t pattern = (uint8_t)byte * 0x01010101u;

    __asm__ volatile("rep stosl\n\tmov %3, %1\n\trep stosb"
                     : "+D"(target), "+c"(words)
                     : "a"(pattern), "r"(rest)
                     : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t length)
{
    const uint8_t *left = a;
    const uint8_t *right = b;

    for (size_t i = 0; i < length; i++)
        if (left[i] != right[i])
            return left[i] - right[i];
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;

    while (text[length] != '\0')
        length++;
    return length;
}

int strcmp(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b)
        a++, b++;
    return (uint8_t)*a - (uint8_t)*b;
}

char *strchr(const char *text, int wanted)
{
    for (;; text++) {
        if (*text == (char)wanted)
            return (char *)text;
        if (*text == '\0')
            return NULL;
    }
}

void copy_string(char *to, const char *from, size_t size)
{
    size_t i = 0;

    for (; i + 1 < size && from[i] != '\0'; i++)
        to[i] = from[i];
    to[i] = '\0';
}

bool starts_with(const char *text, const char *prefix)
{
    while (*prefix != '\0')
        if (*text++ != *prefix++)
            return false;
    return true;
}

unsigned parse_unsigned(const char *text, unsigned fallback)
{
    unsigned value = 0;

    if (text == NULL || *text == '\0')
        return fallback;
    for (; *text != '\0'; text++) {
        unsigned digit = (unsigned)(*text - '0');
        if (digit > 9 || value > (UINT32_MAX - digit) / 10)
            return fallback;
        value = value * 10 + digit;
    }
    return value;
}
