"""Sharing: the queue between virtual devices and a host-side driver."""
