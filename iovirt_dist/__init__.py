"""I/O virtualization as real, distributed message flows."""

__version__ = "0.1.0"
