/* Process entry: argc, argv and the environment lie on the stack (System V ABI, i386). */
    .text
    .globl _start
_start:
    xor %ebp, %ebp
    mov (%esp), %eax
    lea 4(%esp), %edx
    push %edx
    push %eax
    call main
    push %eax
    call exit

/* int system_call(int number, int a, int b, int c, int d, int e) */
    .globl system_call
system_call:
    push %ebx
    push %esi
    push %edi
    mov 16(%esp), %eax
    mov 20(%esp), %ebx
    mov 24(%esp), %ecx
    mov 28(%esp), %edx
    mov 32(%esp), %esi
    mov 36(%esp), %edi
    int $0x80
    pop %edi
    pop %esi
    pop %ebx
    ret

    .section .note.GNU-stack, "", @progbits
