"""Virtual devices: per-guest register machines, and the platform devices of each machine."""
