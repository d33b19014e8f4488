"""Device controllers: the processes that own a medium and serve commands of any number of queue pairs.

A controller knows extents, terminals and bytes; it knows no guests. `base` is what all of them share, `block` and
`console` are the device classes. Cores are sans-IO; the thin I/O is in the modules named ``storage``, ``terminal``
and ``runner``.
"""
