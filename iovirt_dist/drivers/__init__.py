"""Host-side drivers: they turn what virtual devices ask into controller commands, and completions back.

This is the second driver of every device; the first is inside the guest.
"""
