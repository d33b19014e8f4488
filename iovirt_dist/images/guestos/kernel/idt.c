/* Interrupt descriptor table and dispatch (Intel SDM volume 3, sections 6.10 to 6.12).
 *
 * Every gate is an interrupt gate, so the kernel runs with interrupts off and is never
 * interrupted: they are taken in ring 3 and in the idle loop's HLT only. On one CPU that makes
 * every path through the kernel atomic up to the point where it blocks. */
#include "gdt.h"
#include "pic.h"
#include "process.h"
#include "trap.h"
#include "x86.h"

enum {
    GATE_INTERRUPT = 0x8E,
    GATE_INTERRUPT_USER = 0xEE,
    GATE_TASK = 0x85,
    IDT_ENTRIES = VECTOR_SYSTEM_CALL + 1,
    STUBS = 48,
};

static uint64_t idt[IDT_ENTRIES];
static irq_handler *irq_handlers[16];

static uint64_t gate(uint16_t selector, uint32_t offset, uint32_t type)
{
    uint32_t low = ((uint32_t)selector << 16) | (offset & 0xFFFF);
    uint32_t high = (offset & 0xFFFF0000) | (type << 8);

    return ((uint64_t)high << 32) | low;
}

void idt_init(void)
{
    struct {
        uint16_t limit;
        const void *base;
    } __attribute__((packed)) pointer = {sizeof idt - 1, idt};

    for (unsigned vector = 0; vector < STUBS; vector++)
        idt[vector] = gate(KERNEL_CODE, trap_stubs[vector], GATE_INTERRUPT);
    /* INT3 and INTO are instructions that programs may use. */
    idt[3] = gate(KERNEL_CODE, trap_stubs[3], GATE_INTERRUPT_USER);
    idt[4] = gate(KERNEL_CODE, trap_stubs[4], GATE_INTERRUPT_USER);
    idt[VECTOR_DOUBLE_FAULT] = gate(DOUBLE_FAULT_TASK, 0, GATE_TASK);
    idt[VECTOR_SYSTEM_CALL] = gate(KERNEL_CODE, trap_stubs[STUBS], GATE_INTERRUPT_USER);
    __asm__ volatile("lidt %0" : : "m"(pointer) : "memory");
}

void irq_install(unsigned irq, irq_handler *handler)
{
    irq_handlers[irq] = handler;
    pic_unmask(irq);
}

static void interrupt(unsigned irq)
{
    if (pic_is_spurious(irq))
        return;
    if (irq_handlers[irq] != 0)
        irq_handlers[irq](irq);
    pic_end_of_interrupt(irq);
}

void trap_dispatch(struct trap_frame *frame)
{
    if (frame->vector == VECTOR_SYSTEM_CALL)
        system_call(frame);
    else if (frame->vector >= VECTOR_IRQ)
        interrupt(frame->vector - VECTOR_IRQ);
    else
        fault(frame);
    if (from_user(frame))
        schedule_if_needed();
}
