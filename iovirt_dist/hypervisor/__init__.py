"""The hypervisor's rooms, in the order in which a request walks through them.

privilege > address_map > intercept > vdev > mux > driver > (controller) > irqchip > guest
"""
