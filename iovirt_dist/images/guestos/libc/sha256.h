/* SHA-256 (FIPS 180-4). */
#ifndef LIBC_SHA256_H
#define LIBC_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BLOCK = 64, SHA256_HEX = 64 };

struct sha256 {
    uint32_t state[8];
    uint64_t length;                  /* bytes so far */
    uint32_t block[SHA256_BLOCK / 4]; /* the last length % 64 of them */
};

void sha256_init(struct sha256 *hash);
void sha256_update(struct sha256 *hash, const void *data, size_t length);

/* Writes the digest as 64 hexadecimal digits and a terminator. */
void sha256_finish(struct sha256 *hash, char *hex);

#endif
