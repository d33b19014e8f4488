"""Gateways: foreign protocols whose peers become guests of a hypervisor."""
