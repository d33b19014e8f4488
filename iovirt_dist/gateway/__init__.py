"""Gateways: the controllers' devices for virtual machines that are not ours."""
