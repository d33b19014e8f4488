/* Global descriptor table and the two task state segments (Intel SDM volume 3, sections 3.4.5 and
 * 7.2). The CPU needs one TSS for the ring 0 stack; the other is the target of the double fault
 * task gate: a kernel stack that overflowed cannot take the frame of its own exception. */
#include "gdt.h"

#include "printk.h"
#include "string.h"
#include "x86.h"

enum { GDT_ENTRIES = 7, ACCESS_TSS = 0x89, FLAGS_4K_32BIT = 0xC };

struct task_state {
    uint32_t link;
    uint32_t esp0, ss0;
    uint32_t esp1, ss1, esp2, ss2;
    uint32_t cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs;
    uint32_t ldt;
    uint16_t trap, io_map;
};

static uint64_t gdt[GDT_ENTRIES];
static struct task_state task_state;
static struct task_state double_fault_state;
static uint8_t double_fault_stack[4096] __attribute__((aligned(16)));

void load_segments(void);

static uint64_t descriptor(uint32_t base, uint32_t limit, uint32_t access, uint32_t flags)
{
    uint32_t low = (base << 16) | (limit & 0xFFFF);
    uint32_t high = (base & 0xFF000000) | (flags << 20) | (limit & 0xF0000) | (access << 8) |
                    ((base >> 16) & 0xFF);

    return ((uint64_t)high << 32) | low;
}

static _Noreturn void double_fault(void)
{
    panic("double fault at eip %08x, esp %08x (kernel stack overflow?)", task_state.eip,
          task_state.esp);
}

void set_kernel_stack(uint32_t top)
{
    task_state.esp0 = top;
}

void set_double_fault_directory(uint32_t physical)
{
    double_fault_state.cr3 = physical;
}

static void task_states_init(void)
{
    /* An I/O map beyond the segment's limit: no port is open to ring 3 (volume 1, 19.5.2). */
    task_state.ss0 = KERNEL_DATA;
    task_state.io_map = sizeof task_state;

    double_fault_state.eip = (uint32_t)double_fault;
    double_fault_state.esp = (uint32_t)(double_fault_stack + sizeof double_fault_stack);
    double_fault_state.eflags = 2;
    double_fault_state.cs = KERNEL_CODE;
    double_fault_state.ss = double_fault_state.ds = double_fault_state.es = KERNEL_DATA;
    double_fault_state.io_map = sizeof double_fault_state;
}

void gdt_init(void)
{
    struct {
        uint16_t limit;
        const void *base;
    } __attribute__((packed)) pointer = {sizeof gdt - 1, gdt};

    task_states_init();
    gdt[KERNEL_CODE / 8] = descriptor(0, 0xFFFFF, 0x9A, FLAGS_4K_32BIT);
    gdt[KERNEL_DATA / 8] = descriptor(0, 0xFFFFF, 0x92, FLAGS_4K_32BIT);
    gdt[USER_CODE / 8] = descriptor(0, 0xFFFFF, 0xFA, FLAGS_4K_32BIT);
    gdt[USER_DATA / 8] = descriptor(0, 0xFFFFF, 0xF2, FLAGS_4K_32BIT);
    gdt[TASK_STATE / 8] = descriptor((uint32_t)&task_state, sizeof task_state - 1, ACCESS_TSS, 0);
    gdt[DOUBLE_FAULT_TASK / 8] =
        descriptor((uint32_t)&double_fault_state, sizeof double_fault_state - 1, ACCESS_TSS, 0);

    __asm__ volatile("lgdt %0" : : "m"(pointer) : "memory");
    load_segments();
    __asm__ volatile("ltr %w0" : : "r"(TASK_STATE));
}
