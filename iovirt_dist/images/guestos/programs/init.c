/* Process 1: runs the programs of the option run=A,B,... one after another, then only collects
 * the dead. Each gets its name and all options as arguments. */
#include "libc.h"

enum { NAME_SIZE = 32, CANNOT_RUN = 127 };

static _Noreturn void become(const char *name, char **arguments)
{
    arguments[0] = (char *)name;
    if (execve(name, arguments, NULL) == -ENOENT)
        print("init: there is no program called '%s'\n", name);
    else
        print("init: cannot run '%s'\n", name);
    exit(CANNOT_RUN);
}

static void run(const char *name, char **arguments)
{
    uint32_t status;
    int pid = fork();

    if (pid == 0)
        become(name, arguments);
    if (pid < 0) {
        print("init: cannot fork for '%s': error %d\n", name, -pid);
        return;
    }
    /* Orphans come to init too: wait for whoever ends until it is this one. */
    while (waitpid(-1, &status, 0) != pid)
        ;
    if (was_signalled(status))
        print("init: %s was killed by signal %u\n", name, signal_of(status));
    else if (exit_status_of(status) != 0 && exit_status_of(status) != CANNOT_RUN)
        print("init: %s exited with status %u\n", name, exit_status_of(status));
}

int main(int count, char **arguments)
{
    const char *list = argument(arguments, "run");
    char name[NAME_SIZE];

    (void)count;
    while (list != NULL && *list != '\0') {
        const char *end = strchr(list, ',');
        size_t length = end != NULL ? (size_t)(end - list) : strlen(list);

        copy_string(name, list, length + 1 < NAME_SIZE ? length + 1 : NAME_SIZE);
        if (*name != '\0')
            run(name, arguments);
        list = end != NULL ? end + 1 : NULL;
    }
    print("init: all done\n");
    while (waitpid(-1, NULL, 0) > 0)
        ;
    pause(); /* no child is left, so none will come */
}
