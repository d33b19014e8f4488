/* The instructions that C has no words for. The 80386 set only: no INVLPG, CMOV or CPUID. */
#ifndef KERNEL_X86_H
#define KERNEL_X86_H

#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void outw(uint16_t port, uint16_t value)
{
    __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;

    __asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void rep_insw(uint16_t port, void *buffer, uint32_t words)
{
    __asm__ volatile("rep insw" : "+D"(buffer), "+c"(words) : "d"(port) : "memory");
}

static inline void rep_outsw(uint16_t port, const void *buffer, uint32_t words)
{
    __asm__ volatile("rep outsw" : "+S"(buffer), "+c"(words) : "d"(port) : "memory");
}

static inline void rep_outsb(uint16_t port, const void *buffer, uint32_t bytes)
{
    __asm__ volatile("rep outsb" : "+S"(buffer), "+c"(bytes) : "d"(port) : "memory");
}

/* A locked instruction orders all loads and stores before it with those behind (Intel SDM volume
 * 3, section 8.2.3.9). */
static inline void memory_barrier(void)
{
    __asm__ volatile("lock addl $0, (%%esp)" : : : "memory", "cc");
}

static inline void interrupts_off(void)
{
    __asm__ volatile("cli" : : : "memory");
}

/* STI takes effect after the next instruction, so no interrupt can come between it and HLT and
 * leave us asleep with work to do (Intel SDM volume 2, STI). */
static inline void sleep_until_interrupt(void)
{
    __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
}

static inline _Noreturn void halt_for_ever(void)
{
    for (;;)
        __asm__ volatile("cli\n\thlt" : : : "memory");
}

static inline uint32_t read_cr2(void)
{
    uint32_t value;

    __asm__ volatile("mov %%cr2, %0" : "=r"(value));
    return value;
}

static inline uint32_t read_cr0(void)
{
    uint32_t value;

    __asm__ volatile("mov %%cr0, %0" : "=r"(value));
    return value;
}

static inline void write_cr0(uint32_t value)
{
    __asm__ volatile("mov %0, %%cr0\n\tjmp 1f\n1:" : : "r"(value) : "memory");
}

static inline void write_cr3(uint32_t value)
{
    __asm__ volatile("mov %0, %%cr3" : : "r"(value) : "memory");
}

#endif
