"""Last room: interrupt levels of a guest's CPU, on their way to the guest."""
