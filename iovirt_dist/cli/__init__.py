"""The command line, ``iovirt``: `main` has the commands, one module each has the work."""
