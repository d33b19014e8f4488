/* Runs for ever and does nothing. */
#include "libc.h"

int main(int count, char **arguments)
{
    (void)count, (void)arguments;
    print("idle: asleep\n");
    pause();
}
