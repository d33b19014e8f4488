/* Entry from the multiboot loader (Multiboot 0.6.96, sections 3.1 and 3.2): 32-bit protected
 * mode, flat segments of unknown selectors, paging off, interrupts off, EAX the magic number, EBX
 * the address of the boot information. ESP and the loader's GDT are not to be relied on. */
#define MULTIBOOT_MAGIC 0x1BADB002
#define MULTIBOOT_MEMORY_INFO 0x2

    .section .multiboot, "a"
    .balign 4
    .long MULTIBOOT_MAGIC
    .long MULTIBOOT_MEMORY_INFO
    .long -(MULTIBOOT_MAGIC + MULTIBOOT_MEMORY_INFO)

    .text
    .globl _start
_start:
    cli
    cld
    mov $boot_stack_top, %esp
    push $0                     /* EFLAGS: everything clear, IOPL 0 */
    popf
    push %ebx
    push %eax
    call kernel_main
1:  hlt
    jmp 1b

    .bss
    .balign 4096
boot_stack:
    .skip 8192                  /* becomes the idle loop's stack */
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
