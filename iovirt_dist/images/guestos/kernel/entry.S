/* Interrupt and exception entry, the way back, and the context switch. */
#define KERNEL_DATA 0x10

/* Each stub leaves the same frame (struct trap_frame): a zero where the CPU pushes no error code
 * (Intel SDM volume 3, section 6.13 and table 6-1). */
    .macro stub vector
    .balign 16
stub_\vector:
    .if \vector != 8 && \vector != 17 && \vector != 21 && \vector != 29 && \vector != 30
    .if \vector < 10 || \vector > 14
    push $0
    .endif
    .endif
    push $\vector
    jmp trap_entry
    .endm

    .text
    .altmacro
    .set vector_number, 0
    .rept 48
    stub %vector_number
    .set vector_number, vector_number + 1
    .endr
    stub 128

trap_entry:
    pusha
    push %ds
    push %es
    push %fs
    push %gs
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    cld                         /* the program may have set the direction flag */
    push %esp
    call trap_dispatch
    add $4, %esp

    .globl trap_return
trap_return:
    pop %gs
    pop %fs
    pop %es
    pop %ds
    popa
    add $8, %esp                /* vector and error code */
    iret

/* void return_to_user(struct trap_frame *frame) */
    .globl return_to_user
return_to_user:
    mov 4(%esp), %esp
    jmp trap_return

/* void switch_context(uint32_t *save_esp, uint32_t load_esp): saves what the C calling convention
 * makes the callee's; the rest is on the caller's stack already. */
    .globl switch_context
switch_context:
    mov 4(%esp), %eax
    mov 8(%esp), %edx
    push %ebp
    push %ebx
    push %esi
    push %edi
    mov %esp, (%eax)
    mov %edx, %esp
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
    ret

/* void load_segments(void): after lgdt. */
    .globl load_segments
load_segments:
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    ljmp $0x08, $1f
1:  ret

/* The stubs' addresses, for the IDT: vectors 0 to 47, then 128. */
    .section .rodata
    .balign 4
    .globl trap_stubs
trap_stubs:
    .macro stub_address vector
    .long stub_\vector
    .endm
    .set vector_number, 0
    .rept 48
    stub_address %vector_number
    .set vector_number, vector_number + 1
    .endr
    stub_address 128

    .section .note.GNU-stack, "", @progbits
