#include "printk.h"

#include "format.h"
#include "tty.h"
#include "uart.h"
#include "x86.h"

static void print_list(const char *format, va_list arguments)
{
    char text[256];

    tty_put_now(text, format_text(text, sizeof text, format, arguments));
}

void printk(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    print_list(format, arguments);
    va_end(arguments);
}

void panic(const char *format, ...)
{
    va_list arguments;

    printk("kernel panic: ");
    va_start(arguments, format);
    print_list(format, arguments);
    va_end(arguments);
    printk("\n");
    uart_drain();
    halt_for_ever();
}

void print_registers(const struct trap_frame *frame)
{
    printk("eax %08x ebx %08x ecx %08x edx %08x\n", frame->eax, frame->ebx, frame->ecx,
           frame->edx);
    printk("esi %08x edi %08x ebp %08x esp %08x\n", frame->esi, frame->edi, frame->ebp,
           from_user(frame) ? frame->user_esp : (uint32_t)&frame->user_esp);
    printk("eip %08x cs %04x eflags %08x vector %u error %x cr2 %08x\n", frame->eip, frame->cs,
           frame->eflags, frame->vector, frame->error, read_cr2());
}
