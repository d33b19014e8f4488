"""A virtual disk for NBD clients: a guest whose driver serves the NBD protocol instead of running programs.

`protocol` has the formats, `negotiation` and `transmission` are the two phases of a connection, `connection` joins
them, `server` brings the requests of all connections to the disk and the answers back. Nothing here touches a socket
or a clock: `iovirt_dist.runtime.nbd_process` does.
"""
