/* Memory and string functions, shared by the kernel and the programs. */
#ifndef LIB_STRING_H
#define LIB_STRING_H

#include <stdbool.h>
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t length);
void *memmove(void *to, const void *from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *a, const void *b, size_t length);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
char *strchr(const char *text, int wanted);

/* Copies at most size - 1 characters and always terminates. */
void copy_string(char *to, const char *from, size_t size);

/* True if `text` begins with `prefix`. */
bool starts_with(const char *text, const char *prefix);

/* Decimal digits to a number, `fallback` when `text` is NULL, empty, not a number or too large. */
unsigned parse_unsigned(const char *text, unsigned fallback);

#endif
