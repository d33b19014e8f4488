"""The vhost-user protocol, back end: a virtual machine monitor's virtio devices, served from another process.

The source is QEMU's docs/interop/vhost-user.rst; sections are named after its headings. The other side is called the
front end. `backend` decides, without I/O; `mapping`, `events` and `socket` are all that touches the operating
system.
"""
