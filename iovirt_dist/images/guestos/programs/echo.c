/* Prints each line that is typed, until `exit` or the end of the input. */
#include "libc.h"

enum { LINE_SIZE = 512 };

int main(int count, char **arguments)
{
    char line[LINE_SIZE];

    (void)count, (void)arguments;
    print("echo: type lines, 'exit' ends\n");
    for (;;) {
        int length = read(0, line, sizeof line - 1);

        if (length <= 0)
            break;
        line[length] = '\0';
        if (strcmp(line, "exit\n") == 0)
            break;
        print("echo: ");
        write(1, line, (size_t)length);
    }
    print("echo: done\n");
    return 0;
}
