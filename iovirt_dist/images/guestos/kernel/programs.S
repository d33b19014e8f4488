/* The programs' ELF files and their table, in place of a root file system. The build gives the
 * assembler the folder in which it linked them. */
    .macro program name
    .section .rodata
    .balign 4
\name\()_start:
    .incbin "\name\().elf"
\name\()_end:
\name\()_name:
    .asciz "\name"
    .section .rodata.programs, "a"
    .long \name\()_name, \name\()_start, \name\()_end
    .endm

    .section .rodata.programs, "a"
    .balign 4
    .globl programs
programs:
    program init
    program job
    program poke
    program echo
    program spin
    program idle
    program check
    program halt
    program random
    .section .rodata.programs, "a"
    .long 0, 0, 0

    .section .note.GNU-stack, "", @progbits
