/* Exceptions. A program's kills it, with a line that names the cause (and the I/O instruction, if
 * it was one); the kernel's own is the end. */
#include "abi.h"
#include "decode.h"
#include "printk.h"
#include "process.h"
#include "trap.h"
#include "x86.h"

enum { VECTOR_NMI = 2, VECTOR_MACHINE_CHECK = 18, PAGE_FAULT_WRITE = 2 };

/* Intel SDM volume 3, table 6-1, and the signals that Linux sends for them. */
static const struct {
    const char *name;
    uint32_t signal;
} exceptions[] = {
    [0] = {"divide error", SIGFPE},
    [1] = {"debug exception", SIGTRAP},
    [2] = {"non-maskable interrupt", SIGSEGV},
    [3] = {"breakpoint", SIGTRAP},
    [4] = {"overflow", SIGSEGV},
    [5] = {"bound range exceeded", SIGSEGV},
    [6] = {"invalid opcode", SIGILL},
    [7] = {"no FPU", SIGFPE},
    [8] = {"double fault", SIGSEGV},
    [9] = {"FPU segment overrun", SIGFPE},
    [10] = {"invalid TSS", SIGSEGV},
    [11] = {"segment not present", SIGBUS},
    [12] = {"stack fault", SIGBUS},
    [13] = {"general protection", SIGSEGV},
    [14] = {"page fault", SIGSEGV},
    [16] = {"FPU error", SIGFPE},
    [17] = {"alignment check", SIGBUS},
    [18] = {"machine check", SIGBUS},
    [19] = {"SIMD error", SIGFPE},
    [31] = {NULL, 0},
};

static void describe_cause(const struct trap_frame *frame, char *text, size_t size)
{
    if (frame->vector == VECTOR_PAGE_FAULT)
        print_to(text, size, "%s of 0x%08x", frame->error & PAGE_FAULT_WRITE ? "write" : "read",
                 read_cr2());
    else
        decode_instruction(frame, text, size);
}

void fault(struct trap_frame *frame)
{
    const char *name = exceptions[frame->vector].name;
    uint32_t signal = exceptions[frame->vector].signal;
    char cause[64];

    if (name == NULL)
        name = "reserved exception", signal = SIGSEGV;
    if (!from_user(frame) || frame->vector == VECTOR_NMI ||
        frame->vector == VECTOR_MACHINE_CHECK) {
        print_registers(frame);
        panic("%s in the kernel at eip %08x", name, frame->eip);
    }
    describe_cause(frame, cause, sizeof cause);
    printk("kernel: pid %d (%s) %s at eip %08x: %s\n", current->pid, current->name, name,
           frame->eip, cause);
    process_exit(signal);
}
