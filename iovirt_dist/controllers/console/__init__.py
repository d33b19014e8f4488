"""The console controller: a terminal per name, with a log file and a pseudo-terminal that people attach to."""
