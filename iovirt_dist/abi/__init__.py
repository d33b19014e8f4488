"""System-call interfaces of guest operating systems, as declared tables: one module per OS and architecture.

Both ends use them: the guest's process to know what memory a call reads and writes, the hypervisor to know what to do.
"""
