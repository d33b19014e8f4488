"""VIRTIO as both sides know it: rings in guest memory, feature bits, and the formats of each device class.

Pure: memory is an argument, nothing here knows a hypervisor, a guest or a socket. The same ring code serves the memory
of an emulated machine and a vhost-user mapping. Sections are those of VIRTIO 1.2 unless said otherwise.
"""
