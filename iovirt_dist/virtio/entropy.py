"""Formats of the entropy device (section 5.4): it has no features, configuration or headers.

A request is device-writable bytes, which the device fills with randomness from their start; the used length says how
many, at least one (section 5.4.6).
"""

from __future__ import annotations

REQUEST = 0
"""Number of the only queue."""
CONFIG_BYTES = 0
