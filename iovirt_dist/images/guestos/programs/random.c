/* Reads random bytes from /dev/hwrng and prints them. */
#include "libc.h"

enum { BYTES = 32 };

int main(int count, char **arguments)
{
    int descriptor = open("/dev/hwrng", O_RDONLY);
    uint8_t bytes[BYTES];
    char text[2 * BYTES + 1] = {0};
    size_t got = 0;

    (void)count, (void)arguments;
    if (descriptor < 0) {
        print("random: cannot open /dev/hwrng: error %d\n", -descriptor);
        return 1;
    }
    while (got < BYTES) {
        int length = read(descriptor, bytes + got, BYTES - got);
        if (length <= 0) {
            print("random: cannot read /dev/hwrng: error %d\n", -length);
            return 1;
        }
        got += (size_t)length;
    }
    for (unsigned i = 0; i < BYTES; i++) {
        text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    print("random: %s\n", text);
    return 0;
}
