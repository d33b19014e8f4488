"""The rules of the RISC-V architecture that an emulator leaves to us: traps, interrupt inputs, device accesses."""
