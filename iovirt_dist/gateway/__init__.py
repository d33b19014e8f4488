"""Doors for others' clients: what they ask for goes through the hypervisor as a guest's requests do."""
