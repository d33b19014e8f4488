"""Program guests: an unmodified static ELF program on a CPU in user mode, with no kernel under it.

What a kernel would do with its system calls, the hypervisor does; `marshal` is shared with machine guests, whose
programs' calls can be taken before their kernel sees them.
"""
