/* Shows preemption: while a child counts without a system call, its parent still gets to run. */
#include "libc.h"

enum { COUNT = 400000000, NAPS = 3, NAP_MS = 100 };

static _Noreturn void count_and_exit(void)
{
    for (volatile uint32_t i = 0; i < COUNT; i++)
        ;
    print("spin: child counted to %u\n", COUNT);
    exit(0);
}

int main(int count, char **arguments)
{
    uint32_t status;
    int child = fork();
    int early = 0;

    (void)count, (void)arguments;
    if (child == 0)
        count_and_exit();
    for (int i = 0; i < NAPS; i++) {
        sleep_milliseconds(NAP_MS);
        early += waitpid(child, &status, WNOHANG) == 0;
    }
    print("spin: parent ran %d times while the child was counting\n", early);
    waitpid(child, &status, 0);
    print("spin: done\n");
    return early == NAPS ? 0 : 1;
}
