#include "sha256.h"

#include "string.h"

/* FIPS 180-4, sections 4.2.2 (constants), 4.1.2 (functions), 5.3.3 (initial value), 6.2.2. */
static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* Programs hash all that they read, on emulated CPUs whose time goes by the number of instructions:
 * hence rounds that move no variables, rotations within rotations, and no copy of whole blocks. */

static inline uint32_t rotate(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static inline uint32_t big_endian(uint32_t x)
{
    return x >> 24 | (x >> 8 & 0xFF00) | (x << 8 & 0xFF0000) | x << 24;
}

static void expand(uint32_t *w, const uint32_t *block)
{
    for (unsigned i = 0; i < 16; i++)
        w[i] = big_endian(block[i]);
    for (unsigned i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
}

/* A round with the variables named as before it. After it each is called by the next letter, so
 * that eight rounds with rotated arguments move nothing but d and h. */
static inline void step(uint32_t a, uint32_t b, uint32_t c, uint32_t *d, uint32_t e, uint32_t f,
                        uint32_t g, uint32_t *h, uint32_t constant_and_word)
{
    uint32_t s1 = rotate(rotate(rotate(e, 14) ^ e, 5) ^ e, 6); /* by 6, 11 and 25 */
    uint32_t s0 = rotate(rotate(rotate(a, 9) ^ a, 11) ^ a, 2); /* by 2, 13 and 22 */
    uint32_t t1 = *h + s1 + ((e & (f ^ g)) ^ g) + constant_and_word;

    *d += t1;
    *h = t1 + s0 + ((a & b) | (c & (a | b)));
}

static void compress(uint32_t *state, const uint32_t *block)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    uint32_t w[64];

    expand(w, block);
    for (unsigned i = 0; i < 64; i += 8) {
        const uint32_t *k = &constants[i], *x = &w[i];

        step(a, b, c, &d, e, f, g, &h, k[0] + x[0]);
        step(h, a, b, &c, d, e, f, &g, k[1] + x[1]);
        step(g, h, a, &b, c, d, e, &f, k[2] + x[2]);
        step(f, g, h, &a, b, c, d, &e, k[3] + x[3]);
        step(e, f, g, &h, a, b, c, &d, k[4] + x[4]);
        step(d, e, f, &g, h, a, b, &c, k[5] + x[5]);
        step(c, d, e, &f, g, h, a, &b, k[6] + x[6]);
        step(b, c, d, &e, f, g, h, &a, k[7] + x[7]);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

void sha256_init(struct sha256 *hash)
{
    static const uint32_t initial[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };

    memcpy(hash->state, initial, sizeof initial);
    hash->length = 0;
}

void sha256_update(struct sha256 *hash, const void *data, size_t length)
{
    const uint8_t *bytes = data; /* an i386 need not have it aligned */

    while (length > 0) {
        size_t used = (size_t)(hash->length % SHA256_BLOCK);
        size_t part = SHA256_BLOCK - used < length ? SHA256_BLOCK - used : length;

        if (part == SHA256_BLOCK) {
            compress(hash->state, (const uint32_t *)bytes);
        } else {
            memcpy((uint8_t *)hash->block + used, bytes, part);
            if (used + part == SHA256_BLOCK)
                compress(hash->state, hash->block);
        }
        hash->length += part;
        bytes += part;
        length -= part;
    }
}

void sha256_finish(struct sha256 *hash, char *hex)
{
    static const uint8_t padding[SHA256_BLOCK] = {0x80};
    size_t used = (size_t)(hash->length % SHA256_BLOCK);
    uint64_t bits = hash->length * 8;
    uint8_t length[8];

    for (unsigned i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_update(hash, padding, used < 56 ? 56 - used : 120 - used);
    sha256_update(hash, length, sizeof length);
    for (unsigned i = 0; i < SHA256_HEX; i++)
        hex[i] = "0123456789abcdef"[(hash->state[i / 8] >> (28 - 4 * (i % 8))) & 0xF];
    hex[SHA256_HEX] = '\0';
}
