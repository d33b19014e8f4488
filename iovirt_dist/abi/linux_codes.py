"""Codes of Linux by which a call decides what its pointer argument is: ioctl requests and the like.

Source: include/uapi/asm-generic/ioctls.h, include/uapi/linux/fs.h, arch/x86/include/uapi/asm/prctl.h,
include/uapi/linux/prctl.h. They are the same on every architecture here, but for those that hold the size of a word.
"""

from __future__ import annotations

TCGETS, TCSETS, TCSETSW, TCSETSF = 0x5401, 0x5402, 0x5403, 0x5404
TCSBRK, TCFLSH = 0x5409, 0x540B
TIOCGPGRP, TIOCSPGRP = 0x540F, 0x5410
TIOCGWINSZ, TIOCSWINSZ = 0x5413, 0x5414
FIONREAD = 0x541B

BLKROGET, BLKGETSIZE, BLKFLSBUF, BLKSSZGET = 0x125E, 0x1260, 0x1261, 0x1268
BLKDISCARD, BLKIOMIN, BLKIOOPT, BLKPBSZGET = 0x1277, 0x1278, 0x1279, 0x127B
BLKBSZGET = {4: 0x80041270, 8: 0x80081270}
"""By size of a word: _IOR(0x12, 112, size_t). The value stored is an int."""
BLKGETSIZE64 = {4: 0x80041272, 8: 0x80081272}
"""By size of a word: _IOR(0x12, 114, size_t). The value stored has eight bytes."""

ARCH_SET_FS, ARCH_GET_FS = 0x1002, 0x1003
PR_SET_NAME, PR_GET_NAME = 15, 16
