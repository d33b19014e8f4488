/* Interrupt and exception frames, and who handles them. */
#ifndef KERNEL_TRAP_H
#define KERNEL_TRAP_H

#include <stdbool.h>
#include <stdint.h>

/* What entry.S pushes, lowest address first; user_esp and user_ss only if it came from ring 3. */
struct trap_frame {
    uint32_t gs, fs, es, ds;
    uint32_t edi, esi, ebp, unused_esp, ebx, edx, ecx, eax;
    uint32_t vector, error;
    uint32_t eip, cs, eflags;
    uint32_t user_esp, user_ss;
};

enum {
    VECTOR_DOUBLE_FAULT = 8,
    VECTOR_PAGE_FAULT = 14,
    VECTOR_IRQ = 32,
    VECTOR_SYSTEM_CALL = 128,
};

enum { EFLAGS_ALWAYS_ONE = 0x2, EFLAGS_IF = 0x200 };

static inline bool from_user(const struct trap_frame *frame)
{
    return (frame->cs & 3) == 3;
}

typedef void irq_handler(unsigned irq);

void idt_init(void);

/* Called by entry.S for every vector. */
void trap_dispatch(struct trap_frame *frame);

/* Handles hardware interrupt `irq` (0-15) with `handler`, which is told which one it is, and
 * unmasks it. */
void irq_install(unsigned irq, irq_handler *handler);

/* An exception: kills the process it came from, or panics if that was the kernel. */
void fault(struct trap_frame *frame);

void system_call(struct trap_frame *frame);

/* entry.S */
extern const uint32_t trap_stubs[];
_Noreturn void return_to_user(struct trap_frame *frame);
void trap_return(void);

#endif
