"""Which virtual devices a machine has, and where."""
