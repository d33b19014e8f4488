/* Halts the machine. */
#include "libc.h"

int main(int count, char **arguments)
{
    (void)count, (void)arguments;
    print("halt: error %d\n", -power_off());
    return 1;
}
