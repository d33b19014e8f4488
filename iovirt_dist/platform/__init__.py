"""What guest and hypervisor must agree on without a message: where a machine's devices are."""
