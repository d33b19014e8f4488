/* Runs for ever and does nothing. */
#include "libc.h"

enum { A_LONG_TIME_MS = 1000000000 };

int main(int count, char **arguments)
{
    (void)count, (void)arguments;
    print("idle: asleep\n");
    for (;;)
        sleep_milliseconds(A_LONG_TIME_MS);
}
