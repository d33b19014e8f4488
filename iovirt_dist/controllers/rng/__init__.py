"""The entropy controller: random bytes for any hypervisor that asks."""
