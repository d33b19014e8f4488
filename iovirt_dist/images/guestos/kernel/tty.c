/* Line discipline of /dev/console: the canonical mode of POSIX (General Terminal Interface,
 * 11.1.6), with backspace or delete to erase, ^U to kill the line and ^D for end of file. */
#include "tty.h"

#include <stdbool.h>

#include "file.h"
#include "process.h"
#include "uart.h"

enum { END_OF_FILE = 0x04, BACKSPACE = 0x08, KILL_LINE = 0x15, DELETE = 0x7F };
enum { LINE_SIZE = 256, INPUT_SIZE = 1024 }; /* the latter a power of two */

static char line[LINE_SIZE]; /* being edited */
static uint32_t line_length;
static char input[INPUT_SIZE]; /* whole lines, each ended by NL or END_OF_FILE */
static uint32_t input_put, input_taken;

void tty_put_now(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n') {
            uart_make_room();
            uart_put('\r');
        }
        uart_make_room();
        uart_put(text[i]);
    }
    uart_start();
}

static void put_waiting(char c)
{
    while (!uart_put(c)) {
        uart_start();
        uart_wait_for_room();
    }
}

static int tty_write(uint64_t *position, const void *buffer, uint32_t length)
{
    const char *text = buffer;

    (void)position;
    for (uint32_t i = 0; i < length; i++) {
        if (text[i] == '\n')
            put_waiting('\r');
        put_waiting(text[i]);
    }
    uart_start();
    return (int)length;
}

/* An echo that finds the ring full is dropped: nobody may wait in an interrupt. */
static void echo(const char *text)
{
    while (*text != '\0')
        uart_put(*text++);
    uart_start();
}

static void erase(void)
{
    if (line_length == 0)
        return;
    line_length--;
    echo("\b \b");
}

/* Hands the line to readers, or drops it whole if they are too far behind. */
static void end_line(char end)
{
    if (INPUT_SIZE - (input_put - input_taken) > line_length) {
        for (uint32_t i = 0; i < line_length; i++)
            input[input_put++ % INPUT_SIZE] = line[i];
        input[input_put++ % INPUT_SIZE] = end;
        wake(input);
    }
    line_length = 0;
}

void tty_received(char byte)
{
    char text[2] = {byte, '\0'};

    switch (byte) {
    case '\r':
    case '\n':
        echo("\r\n");
        end_line('\n');
        return;
    case BACKSPACE:
    case DELETE:
        erase();
        return;
    case KILL_LINE:
        while (line_length > 0)
            erase();
        return;
    case END_OF_FILE:
        end_line(END_OF_FILE);
        return;
    }
    if ((byte >= 0 && byte < ' ' && byte != '\t') || line_length == LINE_SIZE)
        return;
    line[line_length++] = byte;
    echo(text);
}

static int tty_read(uint64_t *position, void *buffer, uint32_t length)
{
    char *text = buffer;
    uint32_t done = 0;

    (void)position;
    while (input_put == input_taken)
        wait_for(input);
    while (done < length && input_put != input_taken) {
        char c = input[input_taken++ % INPUT_SIZE];
        if (c == END_OF_FILE)
            break;
        text[done++] = c;
        if (c == '\n')
            break;
    }
    return (int)done;
}

const struct file_operations console_file = {
    .path = "/dev/console",
    .read = tty_read,
    .write = tty_write,
};
