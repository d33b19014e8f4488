"""Virtual machine monitors that are not ours: their command lines, and initial RAM disks for the kernels they run."""
