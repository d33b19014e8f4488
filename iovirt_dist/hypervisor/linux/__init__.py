"""Linux as its programs see it: system calls carried out by the hypervisor, for programs without a kernel of their own.

Nothing here knows an architecture: `iovirt_dist.abi` says what a call's number and arguments are, `request` hands them
to the routine of that name by theirs. A routine that needs a device is a generator (`waits`).

    errno, waits, request      what a routine is given, may wait for, and returns
    nodes, tree                files and what lies behind them; paths
    disk, terminal, entropy    the nodes in front of devices
    line_discipline            the terminal's editing
    process, memory, system    what belongs to a process, and to all
    *_calls                    the routines; `routines` lists them by name
"""
