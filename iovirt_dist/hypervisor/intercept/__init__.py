"""Third room: the interfaces at which a guest's I/O is intercepted."""
