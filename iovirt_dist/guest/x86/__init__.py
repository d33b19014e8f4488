"""The x86 architecture's rules: paging, segmentation, I/O privilege, exception and interrupt delivery, the vCPU."""
